"""The configured backends, and the chain of backends for each route (made by building.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ai_router.errors import Source
from ai_router.http.calls import Timeouts
from ai_router.providers.catalogue import (
    Catalogue,
    Model,
    Provider,
    Rules,
    Search,
)
from ai_router.providers.families import FAMILIES, Family

AUTO = "auto"
XAI, CLASSIFIER = "xai", "classifier"
_VERSION_IN_PATH = re.compile(r"/v[0-9][a-z0-9]*(?:/|$)")
_UNKNOWN_MODEL = Model()


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


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice for an answer: a backend, and the model to ask there."""

    backend: Backend
    model: str
    priority: int = 0
    """vLLM's, for what nobody waits for: a larger one is later. 0: none."""

    @property
    def full_name(self) -> str:
        """``backend/model``."""
        return f"{self.backend.name}/{self.model}"

    @property
    def source(self) -> Source:
        """Who is to blame for the failures of its calls."""
        return self.backend.source._replace(model=self.model)

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
    or when switched off. ``meta``: a server for META alone; None: there is none. ``chains``: the candidates for each
    label of the classifier, in lower case, first choice first; never empty; the owner's routes among them.
    ``searchers``: the same for web searches; may be empty. ``notes``: lines for the operator. ``connect_s``,
    ``idle_s``, ``plain_s``: the settings' limits in seconds for a connect, for a silence in a stream, and for a whole
    answer that is not streamed. ``takes_unknown_models``: a name that nobody knows is taken for ``auto``.
    """

    primary: Backend
    clouds: Mapping[str, Backend]
    classifier: Backend | None
    meta: Backend | None
    catalogue: Catalogue
    chains: Mapping[str, tuple[Candidate, ...]]
    searchers: tuple[Searcher, ...]
    notes: tuple[str, ...]
    connect_s: float
    idle_s: float
    plain_s: float
    takes_unknown_models: bool = False
    judge: Candidate | None = None
    """Who says which of two answers is better; None: nobody does."""

    def adopt(self, new: Registry) -> None:
        """Take over what a catalogue says. A request that is on its way keeps the candidates that it has."""
        self.catalogue, self.clouds, self.notes = new.catalogue, new.clouds, new.notes
        self.chains, self.searchers = new.chains, new.searchers
        self.takes_unknown_models = new.takes_unknown_models
        self.judge = new.judge

    @property
    def xai(self) -> Backend | None:
        """xAI, if it has a key."""
        return self.clouds.get(XAI)

    def backends(self) -> Sequence[Backend]:
        """All configured backends: the classifier, the primary, the one for META, then the catalogue's."""
        local = [backend for backend in (self.classifier, self.primary, self.meta) if backend is not None]
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
