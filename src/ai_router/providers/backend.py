"""One server that answers chats, and one of its models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ai_router.errors import Source
from ai_router.providers.catalogue import Model, Provider, Rules
from ai_router.providers.families import FAMILIES, Family

_NAMES_A_VERSION = re.compile(r"/v[0-9][a-z0-9]*(?:/|$)")
_UNKNOWN = Model()


@lru_cache(maxsize=256)
def api_root(base_url: str) -> str:
    """Where an address's API begins: below /v1, unless it names a version of its own (Gemini's /v1beta/openai)."""
    return base_url if _NAMES_A_VERSION.search(base_url) else f"{base_url}/v1"


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """A configured server, equal to itself only. ``health_path`` answers 200 when it is well (empty: its list of models
    does); ``model`` is asked when nobody names one.

    ``provider`` is its entry in the catalogue; the primary and the classifier have none.
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

    @property
    def source(self) -> Source:
        """The backend's name and its own model, for errors."""
        return Source(self.name, self.model)

    @property
    def family(self) -> Family:
        """How it is spoken with."""
        return FAMILIES["chat" if self.provider is None else self.provider.family]

    @property
    def headers(self) -> Mapping[str, str]:
        """What every call of this backend carries. Nothing of a client's headers is ever among it."""
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "ai-router",
        }
        if self.provider is not None:
            headers |= self.provider.headers
        return headers if self.key is None else {**headers, "Authorization": f"Bearer {self.key}"}

    def url(self, path: str) -> str:
        """The address of an endpoint, which stands below the API's root."""
        return api_root(self.base_url) + path

    def facts(self, model: str) -> Model:
        """What the catalogue knows of a model; nothing, for one that it does not have."""
        return _UNKNOWN if self.provider is None else self.provider.models.get(model, _UNKNOWN)

    def rules(self, model: str) -> Sequence[Rules]:
        """How the fields of a request change for a model."""
        return () if self.provider is None else self.provider.rules_for(model)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend and the model to ask of it."""

    backend: Backend
    model: str

    @property
    def limiter_key(self) -> str:
        """The name under which its limits are counted: the backend's, or that of one of its tiers."""
        tier = None if self.backend.provider is None else self.backend.provider.tier(self.model)
        return self.backend.name if tier is None else f"{self.backend.name}:{tier}"
