"""The values that travel through the router: a request, what was decided, what was tried, how it ended.

All frozen. ``messages`` and ``params`` are shared, never copied and never written to. Times are monotonic
seconds unless a name ends in ``_ms``; ``timestamp`` is the one wall-clock value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ai_router.trace_context import Trace

Message = Mapping[str, Any]


class Label(StrEnum):
    """What a request was found to be."""

    MODERATE = "MODERATE"
    COMPLEX = "COMPLEX"
    ENRICH = "ENRICH"
    META = "META"
    EXPLICIT = "EXPLICIT"


class Route(StrEnum):
    """Where a request goes; the value of x-router-route and of ``route=`` in the log."""

    PRIMARY = "primary"
    XAI = "xai"
    ENRICH = "enrich"
    META = "meta"


class DecidedBy(StrEnum):
    """Who decided; the value of x-router-decided-by."""

    EXPLICIT = "explicit"
    META = "meta"
    CACHE = "cache"
    FAST = "fast"
    CLASSIFIER = "classifier"
    DEFAULT = "default"


class SpeculationResult(StrEnum):
    """What became of the speculative primary call; the value of x-router-speculation."""

    HIT = "hit"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    OFF = "off"


class Status(StrEnum):
    """How a request ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"


class Purpose(StrEnum):
    """What a backend is called for."""

    ANSWER = "answer"
    SPECULATION = "speculation"
    CLASSIFICATION = "classification"
    SEARCH = "search"


ROUTE_OF_LABEL: Mapping[Label, Route] = {
    Label.MODERATE: Route.PRIMARY,
    Label.COMPLEX: Route.XAI,
    Label.ENRICH: Route.ENRICH,
    Label.META: Route.META,
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion request as it arrived.

    ``messages_json`` is the one serialisation of ``messages``: it goes upstream and into the session file.
    ``params`` is everything else the client sent, less ``model``, ``messages`` and what must not be forwarded; objects
    and arrays in it are ``orjson.Fragment``, but for ``stream_options``. ``client`` tells those apart who show keys
    (never by the key itself); empty where none is needed. ``organization`` is what the client says it is of.
    """

    request_id: str
    session_id: str
    timestamp: datetime
    arrived_at: float
    model: str
    stream: bool
    messages: Sequence[Message]
    messages_json: bytes
    params: Mapping[str, Any]
    date_context: str
    total_chars: int
    task: str | None = None
    wants_usage: bool = False
    client: str = ""
    organization: str = ""
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Which route, who said so, and why in words a person understands.

    ``confidence`` is a probability in [0, 1], or None where the decider has none to give. ``model`` is set when
    the client named a model of the route's backend. ``failure`` is set when a classifier was asked in vain, ``warning``
    when the client should know something about the model that it named. ``route`` is a Route or a provider.
    """

    label: Label
    route: str
    decided_by: DecidedBy
    reason: str
    confidence: float | None = None
    model: str | None = None
    duration_ms: float | None = None
    finish_reason: str | None = None
    failure: str | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one backend for the answer itself."""

    backend: str
    model: str
    started_ms: float
    duration_ms: float
    stream: bool
    speculative: bool = False
    status: int | None = None
    connect_ms: float | None = None
    ttft_ms: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    error_code: str | None = None
    call_number: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """One call as the network saw it, ``call`` its number: bytes of bodies, and its share of the backend's time."""

    call_number: int
    purpose: Purpose
    backend: str
    model: str
    bytes_sent: int
    bytes_received: int
    used_s: float
    abandoned: bool = False
    """Whether we left before its end, or it has not ended."""
    status: int | None = None
    """Of its answer; None if there was none."""

    @property
    def may_cost(self) -> bool:
        """Whether the backend may have worked on it: it had the request, and did not refuse it."""
        return self.bytes_sent > 0 and (self.status is None or self.status < 400)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. ``output`` has the reasoning in it and ``input`` what was cached; ``estimated``: counted by
    us, roughly, since the backend did not say. ``charged_usd`` is what the backend says that it charged."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False
    charged_usd: float | None = None


@dataclass(frozen=True, slots=True)
class CallCost:
    """The tokens of one call of a cloud, and what it cost; None: nobody knows."""

    usage: Usage
    usd: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request cost, in USD, as far as it is known; ``unknown`` names what is not, and is empty if all is.

    ``basis``: who says so: provider, catalogue, genai-prices, electricity, local (no price of electricity is set), none
    (nobody was asked). ``gpu_s`` is the time of local backends. ``usage`` is the answer's; ``by_leg`` has the calls of
    clouds that told theirs. ``baseline_usd`` is what the answer would have cost at the baseline model; None: no price.
    """

    known_usd: float
    basis: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    gpu_s: float = 0.0
    usage: Usage | None = None
    by_call: Mapping[int, CallCost] = field(default_factory=dict)
    baseline_usd: float | None = None

    @property
    def usd(self) -> float | None:
        """The cost; None if a part of it is unknown."""
        return None if self.unknown else self.known_usd


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a request; ``started_ms`` counts from its arrival."""

    kind: str
    started_ms: float
    duration_ms: float
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole story of a request, told once, when its response has closed."""

    request: ChatRequest
    status: Status
    route: str
    decision: Decision | None
    reason: str
    speculation: SpeculationResult
    steps: Sequence[Step]
    attempts: Sequence[Attempt]
    response: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    timings: Mapping[str, float]
    error: str | None
    model: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of ``total_ms`` by what they were spent on, each counted once."""
    error_code: str | None = None
    http_status: int = 200
    """What the client was told, or would have been, had its headers not gone out before."""
    events_skipped: int = 0
    search: tuple[int, Mapping[str, Any]] | None = None
    """The number of the search call that found the context, and what it told of its usage."""
    traffic: Sequence[Traffic] = ()

    @property
    def failed(self) -> bool:
        """Whether it ended in an error that is not the client's own."""
        return self.status is Status.ERROR and (self.http_status >= 500 or self.http_status == 429)
