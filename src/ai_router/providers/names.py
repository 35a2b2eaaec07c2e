"""What a client's ``model`` may name, in this order. Pure.

1. a route of the owner's (``[routes]`` of the catalogue)
2. a route, a provider, or the primary's model
3. ``provider/model``: any model of a configured provider; then a model of the catalogue whose provider has a key
   (before it, since OpenRouter's ``openai/gpt-6-luna`` is meant for OpenAI where that has a key)
4. a retired name whose provider has a key: its successor
5. an alias of the catalogue
6. anything else: not found, or, with UNKNOWN_MODEL=auto, ``auto``

The retired names and their successors are data: ``[providers.NAME.retired]`` in catalogue.toml, looked up by
``replace_retired`` in catalogue.py: whether the name is retired by today, and what takes its place. So are the aliases:
``[aliases]``, looked up by ``Catalogue.alias``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from ai_router.errors import ModelNotFound
from ai_router.providers.catalogue import PRIMARY, is_pattern, replace_retired
from ai_router.providers.registry import AUTO, XAI, Backend, Registry
from ai_router.types import DecidedBy, Decision, Label, Route


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What a client's ``model`` stands for.

    ``route``: a route, a provider's name, or ``auto``. ``model``: the model to ask there; None: its default.
    ``warning``: what the client should know about the name, such as that it is retired; None: nothing.
    """

    route: str
    model: str | None = None
    warning: str | None = None


_CLASSIFIED = ResolvedModel(AUTO)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One entry of GET /v1/models: the name to ask for, and the provider (or ``ai-router``) behind it."""

    id: str
    owned_by: str


def resolve(registry: Registry, model: str, today: date) -> ResolvedModel:
    """What ``model`` names on the day ``today``. Raises ModelNotFound."""
    if model == AUTO:
        return _CLASSIFIED
    resolved = _without_aliases(registry, model, today) or _as_alias(registry, model, today)
    if resolved is not None:
        return resolved
    if registry.takes_unknown_models:
        return ResolvedModel(AUTO, warning=f"there is no model '{model}' here: it is taken for '{AUTO}'")
    raise ModelNotFound(model, nearest(registry, model, today), _missing_key(registry, model))


def explicit_decision(model: str, named: ResolvedModel) -> Decision:
    """The decision of a client that has named ``model``, which stands for ``named``; not for AUTO."""
    return Decision(
        label=Label.EXPLICIT,
        route=named.route,
        decided_by=DecidedBy.EXPLICIT,
        reason=f"the client named '{model}'",
        confidence=1.0,
        model=named.model,
        warning=named.warning,
    )


def listing(registry: Registry, today: date) -> Sequence[ListedModel]:
    """The models to offer: ``auto``, the routes that have a backend, and the backends' models."""
    return list(_listed_models(registry, today))


def nearest(registry: Registry, model: str, today: date) -> Sequence[str]:
    """Up to three names that exist and resemble ``model``, for an error message."""
    known = {entry.id: None for entry in _listed_models(registry, today)}
    bare = {name.partition("/")[2]: None for name in known if "/" in name}
    return difflib.get_close_matches(model, [*bare, *known], n=3, cutoff=0.4)


def _without_aliases(registry: Registry, model: str, today: date) -> ResolvedModel | None:
    return (
        _as_route(registry, model)
        or _as_prefixed_model(registry, model, today)
        or _as_model(registry, model, today)
        or _as_retired_model(registry, model, today)
    )


def _as_alias(registry: Registry, model: str, today: date) -> ResolvedModel | None:
    """The name that an alias stands for. It may need a key that is not there: the alias leads nowhere then."""
    target = registry.catalogue.alias(model)
    if target is None:
        return None
    return _CLASSIFIED if target == AUTO else _without_aliases(registry, target, today)


def _as_route(registry: Registry, model: str) -> ResolvedModel | None:
    if model in registry.catalogue.routes:
        return ResolvedModel(model)
    if model in (PRIMARY, XAI, Route.ENRICH) or model in registry.clouds:
        backend = registry.clouds.get(model)
        return ResolvedModel(model) if backend is None or backend.model else None
    return ResolvedModel(Route.PRIMARY, model) if model == registry.primary.model else None


def _as_prefixed_model(registry: Registry, model: str, today: date) -> ResolvedModel | None:
    """``provider/model``: any model of a configured provider, in the catalogue or not."""
    name, _, name_at_provider = model.partition("/")
    if not name_at_provider:
        return None
    if name == PRIMARY:
        return ResolvedModel(Route.PRIMARY, name_at_provider)
    backend = registry.clouds.get(name)
    if backend is None or backend.provider is None:
        return None
    # Perplexity has a model that is called perplexity/sonar.
    return _resolved(backend, model if model in backend.provider.models else name_at_provider, today)


def _as_model(registry: Registry, model: str, today: date) -> ResolvedModel | None:
    """A model's own name: the first configured provider that has it."""
    for backend in registry.clouds.values():
        if backend.provider is not None and (model in backend.provider.models or model == backend.model):
            return _resolved(backend, model, today)
    return None


def _as_retired_model(registry: Registry, model: str, today: date) -> ResolvedModel | None:
    """A retired name: the first configured provider that has retired it."""
    for backend in registry.clouds.values():
        if backend.provider is not None and backend.provider.retirement(model) is not None:
            return _resolved(backend, model, today)
    return None


def _resolved(backend: Backend, model: str, today: date) -> ResolvedModel:
    if backend.provider is None:
        return ResolvedModel(backend.name, model)
    name_in_use, warning = replace_retired(backend.provider, model, today)
    return ResolvedModel(backend.name, name_in_use, warning)


def _missing_key(registry: Registry, model: str) -> str | None:
    """A sentence on the key that is missing, for a name that the catalogue has; None for any other name."""
    prefix = model.partition("/")[0]
    for name, provider in registry.catalogue.providers.items():
        if name in registry.clouds or provider.key is None:
            continue
        if name == prefix or model in provider.models or provider.retirement(model) is not None:
            return f"It is {provider.title or name}'s, and {provider.key} is not set."
    return None


def _listed_models(registry: Registry, today: date) -> Iterator[ListedModel]:
    yield ListedModel(AUTO, "ai-router")
    yield ListedModel(PRIMARY, "ai-router")
    if registry.xai is not None:
        yield ListedModel(XAI, "ai-router")
    if registry.searchers:
        yield ListedModel(Route.ENRICH, "ai-router")
    yield from (ListedModel(name, "ai-router") for name in registry.catalogue.routes)
    yield ListedModel(f"{PRIMARY}/{registry.primary.model}", PRIMARY)
    for alias in registry.catalogue.aliases:
        # One whose provider has no key leads nowhere.
        if not is_pattern(alias) and _as_alias(registry, alias, today) is not None:
            yield ListedModel(alias, "ai-router")
    for name, backend in registry.clouds.items():
        known = () if backend.provider is None else backend.provider.models
        for model in dict.fromkeys([backend.model, *known] if backend.model else known):
            yield ListedModel(listed_as(name, model), name)


def listed_as(provider: str, model: str) -> str:
    """``provider/model``, by which a client asks for a model; the name itself if it begins with the provider's."""
    return model if model.startswith(f"{provider}/") else f"{provider}/{model}"
