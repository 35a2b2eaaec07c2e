"""The configured backends, and the chain of backends for each route: what the catalogue and the settings come to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

import msgspec

from ai_router.config import Settings, SettingsError
from ai_router.config_values import UnknownModel
from ai_router.errors import Source
from ai_router.http.calls import Timeouts
from ai_router.providers.catalogue import (
    PRIMARY,
    SEARCH,
    SEARXNG,
    Catalogue,
    Model,
    Provider,
    Rules,
    Search,
    load_catalogue,
    replace_retired,
)
from ai_router.providers.families import FAMILIES, Family

AUTO = "auto"
XAI, CLASSIFIER = "xai", "classifier"
_VERSION_IN_PATH = re.compile(r"/v[0-9][a-z0-9]*(?:/|$)")
_UNKNOWN_MODEL = Model()
_SEARXNG_SEARCH = Search(model="json", api="searxng", path="/search", max_usd=0.0)


@lru_cache(maxsize=256)
def api_root(base_url: str) -> str:
    """The root of the API at an address: ``base_url``/v1, unless it has a version in it (Gemini's /v1beta/openai)."""
    return base_url if _VERSION_IN_PATH.search(base_url) else f"{base_url}/v1"


class LearnedFacts:
    """What is known of the primary's model: no catalogue has it, but its server may tell (dispatch/primary_facts.py).

    ``may_change``: whether to ask the server. Whoever asks sets ``facts`` to a new value.
    """

    def __init__(self, facts: Model = _UNKNOWN_MODEL, *, may_change: bool = True) -> None:
        self.facts = facts
        self.may_change = may_change


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """A configured server. It compares by identity.

    ``base_url``: its address, without /v1. ``model``: asked when the client names none. ``health_path``: answers 200
    when the server is well; empty: its list of models does. ``ttft_s``: how long to wait for the first byte of a
    stream, in seconds. ``local``: it runs on the operator's own machines. ``key``: its API key. ``provider``: its entry
    in the catalogue; None for the primary and the classifier. ``cap``: the most requests at once; None: as the settings
    say.
    """

    name: str
    base_url: str
    model: str
    health_path: str
    ttft_s: float
    local: bool
    key: str | None = field(default=None, repr=False)
    provider: Provider | None = None
    cap: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values for fields that the client has not set."""
    takes_date: bool = True
    """Whether it is told the date, in a system message."""
    learned: LearnedFacts = field(default_factory=LearnedFacts)
    not_spoken: frozenset[str] = frozenset()
    """The families that it is known to speak badly, where all others are tried."""

    @property
    def source(self) -> Source:
        """The backend's name and its default model, for errors."""
        return Source(self.name, self.model)

    @property
    def declared_local(self) -> bool:
        """Whether the catalogue says that it is local, whatever its address."""
        return self.provider is not None and self.provider.local

    @property
    def family(self) -> Family:
        """The API that it speaks."""
        return FAMILIES["chat" if self.provider is None else self.provider.family]

    def may_speak(self, family: str) -> bool:
        """Whether it may have the API ``family``. A server of one's own may have each: asking it is how to find out."""
        if self.provider is None:
            return family not in self.not_spoken
        return family == self.provider.family or family in self.provider.also or self.provider.local

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of every call, the key among them. Never any of a client's headers."""
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "ai-router",
        }
        if self.provider is not None:
            headers |= self.provider.headers
        if self.key is None:
            return headers
        own_header = None if self.provider is None else self.provider.key_header
        return {**headers, own_header: self.key} if own_header else {**headers, "Authorization": f"Bearer {self.key}"}

    def url(self, path: str) -> str:
        """The URL of an endpoint; ``path`` is its path below the API's root."""
        return api_root(self.base_url) + path

    def facts(self, model: str) -> Model:
        """The catalogue's entry of a model, or what is known of the primary's; one without any values for any other."""
        if self.provider is None:
            return self.learned.facts if model == self.model else _UNKNOWN_MODEL
        return self.provider.models.get(model, _UNKNOWN_MODEL)

    def rules(self, model: str) -> Sequence[Rules]:
        """The catalogue's rules for the fields of a request for a model."""
        return () if self.provider is None else self.provider.rules_for(model)


_PACKAGED_DEFAULTS = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}
"""Temperature and top_p as SmolLM2's card has them. With llama.cpp's 0.8 it talks nonsense, and
with any system message but its own, which its template puts there, as well."""


_PACKAGED_MODEL = Model(context=8_192, capabilities=frozenset())
"""It sees no pictures, and llama.cpp would leave tools out of its prompt without a word."""
_BADLY_SPOKEN_BY_LLAMA_CPP = frozenset({"responses"})
"""Its events are not numbered, and it does not say when an answer was cut at its limit (b7200)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice for an answer: a backend, and the model to ask there."""

    backend: Backend
    model: str

    @property
    def limiter_key(self) -> str:
        """The name under which its limits are counted: ``backend``, or ``backend:tier`` for a tier of its own."""
        tier = None if self.backend.provider is None else self.backend.provider.tier(self.model)
        return self.backend.name if tier is None else f"{self.backend.name}:{tier}"


@dataclass(frozen=True, slots=True)
class Searcher:
    """A backend that can search the web, and the catalogue's entry on how to ask for that."""

    backend: Backend
    search: Search

    @property
    def candidate(self) -> Candidate:
        """The backend with the model that searches."""
        return Candidate(self.backend, self.search.model)


@dataclass(slots=True, eq=False)
class Registry:
    """The configured backends and what a request needs to know about them. Made at the start; ``adopt`` changes what
    comes from the catalogue.

    ``clouds``: the catalogue's providers that have a key or need none, by name. ``classifier``: None without a server,
    or when switched off. ``chains``: the candidates for each label of the classifier, in lower case, first choice
    first; never empty; the owner's routes among them. ``searchers``: the same for web searches; may be empty.
    ``notes``: lines for the operator. ``connect_s``, ``idle_s``, ``plain_s``: the settings' limits in seconds for a
    connect, for a silence in a stream, and for a whole answer that is not streamed. ``takes_unknown_models``: a name
    that nobody knows is taken for ``auto``.
    """

    primary: Backend
    clouds: Mapping[str, Backend]
    classifier: Backend | None
    catalogue: Catalogue
    chains: Mapping[str, tuple[Candidate, ...]]
    searchers: tuple[Searcher, ...]
    notes: tuple[str, ...]
    connect_s: float
    idle_s: float
    plain_s: float
    takes_unknown_models: bool = False

    def adopt(self, new: Registry) -> None:
        """Take over what a catalogue says. A request that is on its way keeps the candidates that it has."""
        self.catalogue, self.clouds, self.notes = new.catalogue, new.clouds, new.notes
        self.chains, self.searchers = new.chains, new.searchers
        self.takes_unknown_models = new.takes_unknown_models

    @property
    def xai(self) -> Backend | None:
        """xAI, if it has a key."""
        return self.clouds.get(XAI)

    def backends(self) -> Sequence[Backend]:
        """All configured backends: the classifier, the primary, then the catalogue's."""
        local = [self.classifier, self.primary] if self.classifier is not None else [self.primary]
        return [*local, *self.clouds.values()]

    def timeouts(self, backend: Backend, *, stream: bool, total_s: float) -> Timeouts:
        """The deadlines for an answer of ``backend``, which may take ``total_s`` seconds.

        An answer that is not streamed sends nothing before it is complete: it has no deadline for a first byte, and a
        total of its own (docs/decisions/0005).
        """
        total_s = total_s if stream else min(total_s, self.plain_s)
        return Timeouts(
            connect=self.connect_s,
            total=total_s,
            idle=self.idle_s if stream else total_s,
            first_byte=min(backend.ttft_s, total_s) if stream else None,
        )


def build_registry(settings: Settings, today: date | None = None, present: Registry | None = None) -> Registry:
    """The registry for these settings. ``today`` decides which models are retired; None: the present day. ``present``:
    the one whose primary and classifier stay; None: they are made anew.

    Raises SettingsError for a catalogue that cannot work, and ValueError without PRIMARY_URL, which ``serve`` sets to
    the embedded model's address if it is unset.
    """
    if settings.primary_url is None:
        raise ValueError("no primary: PRIMARY_URL is unset and no embedded model was started")
    catalogue = load_catalogue(settings.catalogue_file)
    today = today or date.today()
    notes: list[str] = []
    primary = _primary(settings, settings.primary_url) if present is None else present.primary
    clouds = dict(_cloud_backends(settings, catalogue, today, notes))
    chains = {}
    for where, name, entries in catalogue.chains_of_answers():
        chains[name] = tuple(_candidates(entries, primary, clouds, today))
        if not chains[name]:
            named = ", ".join(entries) or "nothing"
            raise SettingsError(f"CATALOGUE_FILE {settings.catalogue_file}: {where}.{name}: none of {named} has a key")
    return Registry(
        primary=primary,
        clouds=clouds,
        classifier=_classifier(settings) if present is None else present.classifier,
        catalogue=catalogue,
        chains=chains,
        searchers=tuple(_searchers(settings, catalogue, clouds)),
        notes=tuple(notes),
        connect_s=settings.connect_timeout_s,
        idle_s=settings.stream_idle_s,
        plain_s=settings.plain_timeout_s,
        takes_unknown_models=settings.unknown_model is UnknownModel.AUTO,
    )


def _primary(settings: Settings, url: str) -> Backend:
    return Backend(
        name=PRIMARY,
        base_url=url,
        model=settings.primary_model,
        health_path="/health",
        ttft_s=settings.primary_ttft_s,
        local=True,
        key=settings.primary_key,
        defaults=_PACKAGED_DEFAULTS if settings.packaged_model else {},
        takes_date=not settings.packaged_model,
        learned=LearnedFacts(_PACKAGED_MODEL, may_change=False) if settings.packaged_model else LearnedFacts(),
        not_spoken=_BADLY_SPOKEN_BY_LLAMA_CPP if settings.embedded else frozenset(),
    )


def _cloud_backends(
    settings: Settings, catalogue: Catalogue, today: date, notes: list[str]
) -> Iterator[tuple[str, Backend]]:
    """The providers that can be asked, by name. A retired default model is replaced, with a line added to ``notes``."""
    for name, provider in catalogue.providers.items():
        key = None if provider.key is None else settings.variable(provider.key)
        if provider.key is not None and key is None:
            continue
        default_model = settings.xai_model if name == XAI else provider.default_model or ""
        model, note = replace_retired(provider, default_model, today)
        if note is not None:
            notes.append(f"{name}: {note}")
        base = (settings.variable(provider.url) if provider.url else None) or provider.base_url.rstrip("/")
        backend = Backend(
            name=name,
            base_url=base.removesuffix("/v1"),
            model=model,
            health_path="",
            ttft_s=settings.xai_ttft_s if name == XAI else provider.ttft_s,
            local=provider.local,
            key=key,
            provider=provider,
            cap=provider.cap,
        )
        yield name, backend


def _candidates(
    chain: Sequence[str], primary: Backend, clouds: Mapping[str, Backend], today: date
) -> Iterator[Candidate]:
    for entry in chain:
        name, _, model = entry.partition("/")
        backend = primary if name == PRIMARY else clouds.get(name)
        if backend is not None:
            chosen, provider = model or backend.model, backend.provider
            yield Candidate(backend, chosen if provider is None else replace_retired(provider, chosen, today)[0])


def _searchers(settings: Settings, catalogue: Catalogue, clouds: Mapping[str, Backend]) -> Sequence[Searcher]:
    """Who can search, the first choice first. Raises SettingsError for an ENRICH_PROVIDER that cannot."""
    names, first, found = catalogue.chains.get(SEARCH, ()), settings.enrich_provider, dict[str, Searcher]()
    for name in names:
        search = _SEARXNG_SEARCH if name == SEARXNG else catalogue.providers[name].search
        backend = _search_engine(settings) if name == SEARXNG else clouds.get(name)
        if backend is not None and search is not None:
            own_search = msgspec.structs.replace(search, model=settings.xai_search_model)
            found[name] = Searcher(backend, own_search if name == XAI else search)
    if first is not None and first not in found:
        why = "it has no key or address" if first in names else f"who may search: {', '.join(names)}"
        raise SettingsError(f"ENRICH_PROVIDER {first} cannot search: {why}")
    return sorted(found.values(), key=lambda searcher: searcher.backend.name != first)


def _search_engine(settings: Settings) -> Backend | None:
    """The SearXNG of SEARXNG_URL. It is not local, wherever it runs: what it is asked goes on to search engines."""
    if settings.searxng_url is None:
        return None
    return Backend(SEARXNG, settings.searxng_url, "", health_path="/healthz", ttft_s=10.0, local=False)


def _classifier(settings: Settings) -> Backend | None:
    if not settings.classifier_enabled or settings.router_url is None:
        return None
    return Backend(
        name=CLASSIFIER,
        base_url=settings.router_url,
        model=settings.router_model,
        health_path="/health",
        ttft_s=settings.classifier_timeout_s,
        local=True,
    )
