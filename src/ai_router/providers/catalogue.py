"""The catalogue: providers, their models and prices, retired names, and which backends answer which label.

It is one TOML file in the package, catalogue.toml. A file of the user's (CATALOGUE_FILE) is merged over it: tables key
by key, everything else, lists included, as a whole. A provider of a known API family needs an entry and no code.

The classes below are the file's tables; their fields are its keys.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ai_router.config import SettingsError
from ai_router.config_values import base_url as parse_base_url
from ai_router.providers.families import FAMILIES
from ai_router.providers.own_routes import OwnRoute, route_problems
from ai_router.types import Label

PRIMARY = "primary"
META = "meta"
SEARCH = "search"
"""The chain of the providers that are asked to search the web for the route ENRICH."""

SEARXNG = "searxng"
"""In that chain: the search engine of SEARXNG_URL."""

CHAINS = (Label.MODERATE.lower(), Label.COMPLEX.lower(), Label.ENRICH.lower(), Label.META.lower(), SEARCH)
DOORS = ("rerank", "audio", "images")
"""What may be passed on without a decision: the endpoints below /v1 of that name."""
_AUTO = "auto"
_RESERVED_NAMES = frozenset({PRIMARY, _AUTO, "enrich", "meta", "classifier"})
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
_PROVIDER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(gt=0)]


class Price(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The price of a model, in USD per million tokens.

    ``cached``: input that the provider had in its cache; ``cache_write`` and ``cache_write_hour``: input that it has
    put there, for minutes or for an hour; None: as all input. ``input_above`` and ``output_above`` hold for the whole
    of a request whose prompt has more than ``above`` tokens.
    """

    input: NotNegative
    output: NotNegative
    cached: NotNegative | None = None
    cache_write: NotNegative | None = None
    cache_write_hour: NotNegative | None = None
    above: Count | None = None
    input_above: NotNegative | None = None
    output_above: NotNegative | None = None


class Model(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model, by the name that its provider uses.

    ``context``: the size of its context window, in tokens. ``capabilities``: None if unknown; all are assumed then.
    ``send_as``: the field of the request's body that holds the name, if not ``model`` (``preset`` at Perplexity).
    """

    context: Count | None = None
    capabilities: frozenset[Literal["tools", "vision", "reasoning"]] | None = None
    price: Price | None = None
    send_as: str = "model"


class Retired(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A name, or a glob of names, that its provider has retired.

    ``on``: the day, also in the future; None: retired already. ``replaced_by``: the model of the same provider that is
    asked instead.
    """

    replaced_by: str
    on: date | None = None


class Rules(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the fields of a request's body change for the models whose names match the glob ``models``.

    ``when``: the rule holds only for requests that have this field. ``keep``: only these fields are sent; None: all.
    ``drop``: these are not sent. ``drop_when_reasoning``: these are not sent unless reasoning_effort is "none".
    ``rename``: old name to new name; a field is dropped if the client has set the new name, too. ``add``: values for
    fields that the client has not set.
    """

    models: str = "*"
    when: str | None = None
    keep: frozenset[str] | None = None
    drop: frozenset[str] = frozenset()
    drop_when_reasoning: frozenset[str] = frozenset()
    rename: Mapping[str, str] = {}
    add: Mapping[str, Any] = {}


class Search(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to have the web searched (dispatch/search_apis.py).

    ``model``: the model to ask. ``api``: which kind of searcher it is. ``path``: the endpoint, below the API's root; of
    SearXNG below its address. ``fields``: more fields for the body.
    ``max_usd``: the most that a search is expected to cost, for budgets of keys; None: those do not search with it.
    """

    model: str
    max_usd: NotNegative | None = None
    api: Literal["responses", "chat", "searxng"] = "responses"
    path: str = "/responses"
    fields: Mapping[str, Any] = {}


class Provider(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A service with an API for chats, and its models.

    ``base_url``: its address, without /v1. ``family``: its API, a module of ``families``. ``also``: further ones, which
    it is asked in if the client speaks them. ``title``: its name for
    people. ``key`` and ``url``: the environment variables of its API key (None: needs none) and of another address.
    ``key_header``: the header for the key; None: ``Authorization: Bearer``.
    ``default_model``: asked where only the provider is named. ``local``: it runs on the operator's own machines, so
    that nothing sent there leaves them. ``ttft_s``: how long to wait for the first byte of a stream, in seconds.
    ``cap``: the most requests at once; None: as the settings say. ``takes``: fields of ``server_fields`` that it has
    as well. ``headers``: sent with every call. ``tiers``: name to
    glob of the models whose limits are counted apart (OpenRouter's free ones).
    """

    base_url: str
    family: str = "chat"
    also: frozenset[str] = frozenset()
    title: str = ""
    key: str | None = None
    key_header: str | None = None
    url: str | None = None
    default_model: str | None = None
    local: bool = False
    ttft_s: Positive = 60.0
    cap: Count | None = None
    takes: frozenset[str] = frozenset()
    headers: Mapping[str, str] = {}
    rules: Sequence[Rules] = ()
    tiers: Mapping[str, str] = {}
    search: Search | None = None
    models: Mapping[str, Model] = {}
    retired: Mapping[str, Retired] = {}

    def retirement(self, model: str) -> Retired | None:
        """The entry of ``retired`` for ``model``, an exact name before a glob; None for a name that is not retired."""
        if model in self.models and model not in self.retired:
            return None
        exact = self.retired.get(model)
        return exact or next((entry for glob, entry in self.retired.items() if fnmatchcase(model, glob)), None)

    def rules_for(self, model: str) -> Sequence[Rules]:
        """The rules for a model, in the order in which they apply."""
        return [rule for rule in self.rules if fnmatchcase(model, rule.models)]

    def tier(self, model: str) -> str | None:
        """The name of the tier whose limits a model shares; None if they are the provider's."""
        return next((name for name, glob in self.tiers.items() if fnmatchcase(model, glob)), None)


class Catalogue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All providers by name, and the chains: which backends to ask, the first choice first.

    There is a chain for each label of the classifier, in lower case, and SEARCH for web searches. An entry of a chain
    is ``primary``, a provider's name, or ``provider/model``. ``server_fields``: fields of a request that only servers
    for one's own machines have, by the server; a cloud is not sent them. ``aliases``: further names that clients may
    use, or globs of such names, and the names that they stand for. ``doors``: who gets the requests that are passed on
    without a decision, by their kind. ``private``: expressions (RE2), by their names, for what must not leave the
    local network. ``routes``: the owner's own, by their names.
    """

    providers: Mapping[str, Provider]
    chains: Mapping[str, Sequence[str]]
    server_fields: Mapping[str, frozenset[str]] = {}
    aliases: Mapping[str, str] = {}
    doors: Mapping[str, str] = {}
    private: Mapping[str, str] = {}
    routes: Mapping[str, OwnRoute] = {}

    def chains_of_answers(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Of each chain of those who answer: the table that it stands in, its name, and its entries."""
        yield from (("chains", name, self.chains.get(name, ())) for name in CHAINS if name != SEARCH)
        yield from (("routes", name, route.entries) for name, route in self.routes.items())

    def alias(self, model: str) -> str | None:
        """The name that ``model`` stands for: its own entry, else that of the longest glob; None without any."""
        if (exact := self.aliases.get(model)) is not None:
            return exact
        globs = [glob for glob in self.aliases if is_pattern(glob) and fnmatchcase(model, glob)]
        return self.aliases[max(globs, key=len)] if globs else None


def is_pattern(name: str) -> bool:
    """Whether a name of the catalogue is a glob of names."""
    return any(mark in name for mark in "*?[")


def replace_retired(provider: Provider, model: str, today: date) -> tuple[str, str | None]:
    """The name to ask for instead of ``model``, which may be itself, and a warning for those who use it; None: none."""
    entry = provider.retirement(model)
    if entry is None:
        return model, None
    if entry.on is not None and entry.on > today:
        return model, f"'{model}' will be retired on {entry.on}; its successor is '{entry.replaced_by}'"
    when = f" on {entry.on}" if entry.on else ""
    return entry.replaced_by, f"'{model}' was retired{when}; '{entry.replaced_by}' stands in its place"


def load_catalogue(user_file: Path | None = None) -> Catalogue:
    """The package's catalogue with the user's file merged over it. Raises SettingsError, in one line."""
    packaged = tomllib.loads(files("ai_router.providers").joinpath("catalogue.toml").read_text("utf-8"))
    merged = packaged if user_file is None else _merge(packaged, _read_toml(user_file))
    try:
        catalogue = msgspec.convert(merged, Catalogue)
    except msgspec.ValidationError as error:
        raise _error(user_file, str(error)) from None
    for problem in _problems(catalogue):
        raise _error(user_file, problem)
    return _without_server_fields(catalogue)


def _without_server_fields(catalogue: Catalogue) -> Catalogue:
    """The same with a rule more for each cloud."""
    known = frozenset[str]().union(*catalogue.server_fields.values())
    providers = {
        name: provider
        if provider.local
        else msgspec.structs.replace(provider, rules=(Rules(drop=known - provider.takes), *provider.rules))
        for name, provider in catalogue.providers.items()
    }
    return msgspec.structs.replace(catalogue, providers=providers)


def _error(user_file: Path | None, problem: str) -> SettingsError:
    return SettingsError(f"CATALOGUE_FILE {user_file}: {problem}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _error(path, f"is no TOML: {' '.join(str(error).split())}") from None


def _merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    tables = {name for name in overlay if isinstance(overlay[name], dict) and isinstance(base.get(name), dict)}
    return {**base, **overlay, **{name: _merge(base[name], overlay[name]) for name in tables}}


def _problems(catalogue: Catalogue) -> Iterator[str]:
    for name, provider in catalogue.providers.items():
        yield from (f"providers.{name}: {problem}" for problem in _provider_problems(name, provider))
    for name, chain in catalogue.chains.items():
        yield from (f"chains.{name}: {problem}" for problem in _chain_problems(name, chain, catalogue))
    yield from route_problems(catalogue.routes, {**catalogue.providers, **catalogue.aliases})
    for name, route in catalogue.routes.items():
        for entry in route.entries:
            yield from (f"routes.{name}: {problem}" for problem in _chain_entry_problems(name, entry, catalogue))
    for kind, name in catalogue.doors.items():
        if kind not in DOORS:
            yield f"doors: there is no {kind!r}; there are {', '.join(DOORS)}"
        if name != PRIMARY and name not in catalogue.providers:
            yield f"doors.{kind}: {name!r} is no provider of the catalogue"
    for alias, target in catalogue.aliases.items():
        if not target or is_pattern(target) or (target != _AUTO and catalogue.alias(target) is not None):
            yield f"aliases.{alias!r}: {target!r} must be one name, and no alias itself"


def _provider_problems(name: str, provider: Provider) -> Iterator[str]:
    if name in _RESERVED_NAMES or not _PROVIDER_NAME.fullmatch(name):
        yield "a provider's name must match [a-z][a-z0-9_-]* and be none of " + ", ".join(sorted(_RESERVED_NAMES))
    for family in (provider.family, *sorted(provider.also)):
        if family not in FAMILIES:
            yield f"family must be one of {', '.join(FAMILIES)}, not {family!r}"
    try:
        parse_base_url(provider.base_url)
    except ValueError as error:
        yield f"base_url {error}"
    for variable, ending in ((provider.key, "_API_KEY"), (provider.url, "_API_URL")):
        if variable is not None and not re.fullmatch(rf"[A-Z][A-Z0-9_]*{ending}", variable):
            yield f"{variable!r} must be the name of a variable that ends in {ending}"
    if provider.key_header is not None and not _HEADER_NAME.fullmatch(provider.key_header):
        yield f"key_header {provider.key_header!r} is no header that can be sent"
    for header, value in provider.headers.items():
        if not (_HEADER_NAME.fullmatch(header) and value.isascii() and value.isprintable()):
            yield f"headers.{header!r} is no header that can be sent"
    yield from _model_problems(provider)


def _model_problems(provider: Provider) -> Iterator[str]:
    for old, entry in provider.retired.items():
        if entry.replaced_by not in provider.models:
            yield f"retired.{old!r}: replaced_by {entry.replaced_by!r} is none of its models"
    if provider.default_model is not None and provider.models and provider.default_model not in provider.models:
        yield f"default_model {provider.default_model!r} is none of its models"


def _chain_problems(name: str, chain: Sequence[str], catalogue: Catalogue) -> Iterator[str]:
    if name not in CHAINS:
        yield f"there is no such chain; the chains are {', '.join(CHAINS)}"
    if not chain and name != SEARCH:
        yield "must name at least one backend"
    if len(set(chain)) < len(chain):
        yield "names a backend twice"
    for entry in chain:
        yield from _chain_entry_problems(name, entry, catalogue)


def _chain_entry_problems(chain: str, entry: str, catalogue: Catalogue) -> Iterator[str]:
    backend, _, model = entry.partition("/")
    provider = catalogue.providers.get(backend)
    if chain == SEARCH and entry == SEARXNG:
        return
    if provider is None and backend != PRIMARY:
        nearest = difflib.get_close_matches(backend, [PRIMARY, *catalogue.providers], n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        yield f"{entry!r} is no provider of the catalogue{hint}"
    elif chain == SEARCH and model:
        yield f"{entry!r}: who searches is a provider; its model is in its own search entry"
    elif chain == SEARCH and (provider is None or provider.search is None):
        yield f"{entry!r} has no entry that says how to search the web with it"
    elif provider is not None and chain != SEARCH and not model and provider.default_model is None:
        yield f"{entry!r} has no default_model: write {backend}/<model>"
    elif provider is not None and model and provider.models and not _serves(provider, model):
        nearest = difflib.get_close_matches(model, provider.models, n=1)
        yield f"{backend} has no model {model!r}" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _serves(provider: Provider, model: str) -> bool:
    return model in provider.models or provider.retirement(model) is not None
