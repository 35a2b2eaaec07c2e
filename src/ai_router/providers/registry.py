"""The catalogue: which backends there are, and what a client's ``model`` may name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ai_router.errors import ModelNotFound, Source
from ai_router.exchange import Route
from ai_router.settings import Settings
from ai_router.upstream.call import Timeouts

AUTO = "auto"
PRIMARY, XAI, CLASSIFIER = "primary", "xai", "classifier"


@dataclass(frozen=True, slots=True)
class Backend:
    """A server that speaks the OpenAI API. ``health_path`` answers 200 when it is well."""

    name: str
    base_url: str
    model: str
    health_path: str
    ttft_s: float
    local: bool
    key: str | None = field(default=None, repr=False)

    @property
    def source(self) -> Source:
        """The backend's name and its own model, for errors."""
        return Source(self.name, self.model)

    @property
    def headers(self) -> Mapping[str, str]:
        """What every call of this backend carries. Nothing of a client's headers is ever among it."""
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "ai-router",
        }
        return headers if self.key is None else {**headers, "Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True, slots=True)
class Named:
    """What a client's ``model`` names: a route, and a model of its backend where the client chose one."""

    route: Route
    model: str | None = None


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One entry of GET /v1/models."""

    id: str
    owned_by: str


@dataclass(frozen=True, slots=True)
class Registry:
    """The configured backends. ``xai`` is None without a key, ``classifier`` without a server or when switched off."""

    primary: Backend
    xai: Backend | None
    classifier: Backend | None
    search_model: str
    connect_s: float
    idle_s: float
    plain_s: float

    def backends(self) -> Sequence[Backend]:
        """All configured backends."""
        return [backend for backend in (self.classifier, self.primary, self.xai) if backend is not None]

    def resolve(self, model: str) -> Named | None:
        """The route that ``model`` names; None for ``auto``. Raises ModelNotFound."""
        if model == AUTO:
            return None
        named = self._names().get(model)
        if named is not None:
            return named
        provider, slash, rest = model.partition("/")
        if slash and rest and provider in [backend.name for backend in (self.primary, self.xai) if backend]:
            return Named(Route(provider), rest)
        raise ModelNotFound(model, difflib.get_close_matches(model, [AUTO, *self._names()], n=3, cutoff=0.4))

    def listing(self) -> Sequence[ListedModel]:
        """The models to offer: ``auto``, the routes that can work, and the models behind them."""
        listed = [ListedModel(AUTO, "ai-router"), ListedModel(PRIMARY, "ai-router")]
        if self.xai is not None:
            listed += [ListedModel(XAI, "ai-router"), ListedModel(Route.ENRICH, "ai-router")]
        listed.append(ListedModel(f"{PRIMARY}/{self.primary.model}", PRIMARY))
        if self.xai is not None:
            listed.append(ListedModel(f"{XAI}/{self.xai.model}", XAI))
        return listed

    def timeouts(self, backend: Backend, *, stream: bool, total_s: float) -> Timeouts:
        """The deadlines of an answer from ``backend`` with ``total_s`` seconds left for it.

        A plain answer's first byte is its last: it has a total of its own (docs/decisions/0005).
        """
        total_s = total_s if stream else min(total_s, self.plain_s)
        return Timeouts(
            connect=self.connect_s,
            total=total_s,
            idle=self.idle_s if stream else total_s,
            first_byte=min(backend.ttft_s, total_s) if stream else None,
        )

    def _names(self) -> Mapping[str, Named]:
        names = {
            PRIMARY: Named(Route.PRIMARY),
            XAI: Named(Route.XAI),
            str(Route.ENRICH): Named(Route.ENRICH),
            self.primary.model: Named(Route.PRIMARY, self.primary.model),
        }
        if self.xai is not None:
            names[self.xai.model] = Named(Route.XAI, self.xai.model)
        return names


def build_registry(settings: Settings) -> Registry:
    """The catalogue that the settings describe. PRIMARY_URL must be known: ``serve`` fills the embedded one in."""
    if settings.primary_url is None:
        raise ValueError("no primary: PRIMARY_URL is unset and no embedded model was started")
    primary = Backend(
        name=PRIMARY,
        base_url=settings.primary_url,
        model=settings.primary_model,
        health_path="/health",
        ttft_s=settings.primary_ttft_s,
        local=True,
        key=settings.primary_key,
    )
    return Registry(
        primary=primary,
        xai=_xai(settings),
        classifier=_classifier(settings),
        search_model=settings.xai_search_model,
        connect_s=settings.connect_timeout_s,
        idle_s=settings.stream_idle_s,
        plain_s=settings.plain_timeout_s,
    )


def _xai(settings: Settings) -> Backend | None:
    if settings.xai_api_key is None:
        return None
    return Backend(
        name=XAI,
        base_url=settings.xai_api_url,
        model=settings.xai_model,
        health_path="/v1/models",
        ttft_s=settings.xai_ttft_s,
        local=False,
        key=settings.xai_api_key,
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
