"""Making the registry: what the catalogue and the settings come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

import msgspec

from ai_router.config import Settings, SettingsError
from ai_router.config_values import UnknownModel
from ai_router.errors import ModelNotFound
from ai_router.providers.catalogue import (
    META,
    PRIMARY,
    SEARCH,
    SEARXNG,
    Catalogue,
    Model,
    Search,
    load_catalogue,
    replace_retired,
)
from ai_router.providers.names import resolve
from ai_router.providers.registry import AUTO, CLASSIFIER, XAI, Backend, Candidate, LearnedFacts, Registry, Searcher

_PACKAGED_DEFAULTS = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}
"""Temperature and top_p as SmolLM2's card has them. With llama.cpp's 0.8 it talks nonsense, and
with any system message but its own, which its template puts there, as well."""


_PACKAGED_MODEL = Model(context=8_192, capabilities=frozenset())
"""It sees no pictures, and llama.cpp would leave tools out of its prompt without a word."""
_BADLY_SPOKEN_BY_LLAMA_CPP = frozenset({"responses"})
"""Its events are not numbered, and it does not say when an answer was cut at its limit (b7200)."""
_SEARXNG_SEARCH = Search(model="json", api="searxng", path="/search", max_usd=0.0)


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
    meta = _meta(settings) if present is None else present.meta
    clouds = dict(_cloud_backends(settings, catalogue, today, notes))
    chains = {}
    for where, name, entries in catalogue.chains_of_answers():
        chains[name] = tuple(_candidates(entries, primary, clouds, today))
        if not chains[name]:
            named = ", ".join(entries) or "nothing"
            raise SettingsError(f"CATALOGUE_FILE {settings.catalogue_file}: {where}.{name}: none of {named} has a key")
    if meta is not None:
        chains[META] = (Candidate(meta, meta.model), *chains[META])
    if settings.meta_priority:
        chains[META] = tuple(_with_priority(candidate, settings.meta_priority) for candidate in chains[META])
    registry = Registry(
        primary=primary,
        meta=meta,
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
    if settings.judge_model is not None:
        registry.judge = _judge(settings.judge_model, registry, today)
    return registry


def _with_priority(candidate: Candidate, priority: int) -> Candidate:
    """The candidate with vLLM's priority, if it is a server of one's own: a cloud may refuse the field."""
    return replace(candidate, priority=priority) if candidate.backend.provider is None else candidate


def _judge(name: str, registry: Registry, today: date) -> Candidate:
    """The model that judges. Raises SettingsError for a name that is no single model's."""
    try:
        found = resolve(registry, name, today)
    except ModelNotFound as problem:
        raise SettingsError(f"JUDGE_MODEL {name}: {problem}") from None
    backend = registry.primary if found.route == PRIMARY else registry.clouds.get(found.route)
    if backend is None or found.route == AUTO:
        raise SettingsError(f"JUDGE_MODEL {name} is no model: name one as provider/model")
    return Candidate(backend, found.model or backend.model)


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


def _meta(settings: Settings) -> Backend | None:
    """The server for a chat UI's own jobs; None: the primary does them."""
    if settings.meta_url is None:
        return None
    return Backend(
        name=META,
        base_url=settings.meta_url,
        model=settings.meta_model or settings.primary_model,
        health_path="/health",
        ttft_s=settings.primary_ttft_s,
        local=True,
        learned=LearnedFacts(may_change=False),
    )


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
