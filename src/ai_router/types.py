"""The values of a request: the request itself, the decision, the calls of backends, the outcome and its cost.

All are frozen. ``messages`` and ``params`` are shared, never copied and never changed. Moments are monotonic seconds,
except ``timestamp``, which is the wall clock. Names in ``_ms`` are milliseconds, and those in ``_s`` are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ai_router.apis import ClientForm
from ai_router.trace_context import Trace
from ai_router.virtual_key import VirtualKey

Message = Mapping[str, Any]


class Label(StrEnum):
    """The kinds of requests that the router has by itself: three for the classifier, META (a chat UI's own jobs),
    EXPLICIT (a named model). An owner's routes have further ones (``[routes]`` in the catalogue): their names in
    capitals."""

    MODERATE = "MODERATE"
    COMPLEX = "COMPLEX"
    ENRICH = "ENRICH"
    META = "META"
    EXPLICIT = "EXPLICIT"


LabelName = str
"""A Label, or the label of an owner's route."""


class Route(StrEnum):
    """The routes that the router has by itself; also values of x-router-route and of ``route=`` in the log. The name of
    a provider, or of an owner's route, can be one, too."""

    PRIMARY = "primary"
    XAI = "xai"
    ENRICH = "enrich"
    META = "meta"


class DecidedBy(StrEnum):
    """What made the decision; the values of x-router-decided-by."""

    EXPLICIT = "explicit"
    META = "meta"
    CONVERSATION = "conversation"
    CACHE = "cache"
    FAST = "fast"
    CLASSIFIER = "classifier"
    POLICY = "policy"
    DEFAULT = "default"


class FeedbackVerdict(StrEnum):
    """What people say of a decision: it was right, it was not, or it should have had another label."""

    GOOD = "good"
    BAD = "bad"
    SHOULD_BE = "should_be"


class SpeculationResult(StrEnum):
    """The result of the speculative call of the primary; the values of x-router-speculation.

    HIT: it gave the answer. CANCELLED: it was aborted, or failed. SKIPPED: none was made. OFF: none is ever made.
    """

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
    """What a call of a backend is for."""

    ANSWER = "answer"
    SPECULATION = "speculation"
    CLASSIFICATION = "classification"
    SEARCH = "search"
    SHADOW = "shadow"
    """A cloud's answer, to be compared with a local one."""
    JUDGEMENT = "judgement"


_ROUTES: Mapping[LabelName, Route] = {
    Label.MODERATE: Route.PRIMARY,
    Label.COMPLEX: Route.XAI,
    Label.ENRICH: Route.ENRICH,
    Label.META: Route.META,
}
_LABELS: Mapping[str, Label] = {label.value: label for label in Label}


def label_named(name: str) -> LabelName:
    """The label of that name."""
    return _LABELS.get(name, name)


def route_of(label: LabelName) -> str:
    """The route that a label leads to. An owner's route is its label in small letters."""
    return _ROUTES.get(label) or label.lower()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion request as it arrived.

    ``messages_json``: ``messages``, serialised once, for backends and the session file. ``params``: the other fields of
    the body, without ``model``, ``messages`` and those that must not be forwarded; objects and arrays in it are
    ``orjson.Fragment``, except ``stream_options``. ``date_context``: a sentence with the date, for system messages;
    empty: none. ``total_chars``: characters of all messages. ``task``: which job of a chat UI it is; None: none.
    ``wants_usage``: whether the client asked for usage in a stream. ``client``: a name made from the client's key;
    empty if no keys are needed. ``organization``: what the client says about itself. ``searches``: whether the client
    wants the web to be searched. ``key``: the virtual key, if it is one's. ``client_form``: the request in the form of
    the client's API; None: that is chat completions.
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
    searches: bool = False
    client_form: ClientForm | None = None
    warnings: tuple[str, ...] = ()
    """What the client should know of its fields, before any backend is asked."""
    key: VirtualKey | None = None
    local_only: str = ""
    """Why nothing of it may leave the local network; empty: it may."""
    quality: int | None = None
    """How much the cloud is wanted for it, from 0 to 10 (routing/dial.py); None: as the settings say."""
    explains: bool = False
    """Whether its answer is to say what was decided (dispatch/explain.py)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The route of a request, what decided it, and the reason in plain words (x-router-reason).

    ``route``: a Route, or the name of a provider or an owner's route. ``confidence``: a probability in [0, 1]; None if
    there is none. ``model``: the model that the client named; None: the backend's own. ``duration_ms`` and
    ``finish_reason`` are those of the classifier's call. ``failure``: why the classifier gave no decision. ``warning``:
    a note about the named model.
    """

    label: LabelName
    route: str
    decided_by: DecidedBy
    reason: str
    confidence: float | None = None
    model: str | None = None
    duration_ms: float | None = None
    finish_reason: str | None = None
    failure: str | None = None
    warning: str | None = None
    ask: str = ""
    """What of the user's words the head judged. For the client only, as ``evidence``: no log, session or span holds
    them."""
    evidence: tuple[str, ...] = ()
    """The words of the ask that spoke for the label."""
    complex_share: float | None = None
    """P(COMPLEX) / (P(COMPLEX) + P(MODERATE)), of whoever decided; None: it gave no probabilities."""
    judged: LabelName | None = None
    """The decider's label, where the wanted quality has led to another one; None: it has not."""
    quality: int | None = None
    """The quality that was wanted (routing/dial.py); None: nobody said."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of a backend for the answer.

    ``started_ms`` counts from the request's arrival. ``ttft_ms`` (time to first token) and ``connect_ms`` (until the
    response's headers) count from the call's start. ``call_number``: as in Traffic; None if no answer began.
    """

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
    """What one call cost the network and its backend.

    ``call_number``: its number among the request's calls, from 1. ``bytes_sent`` and ``bytes_received`` are those of
    bodies. ``used_s``: its share of the backend's time, in seconds (http/calls.py, Occupancy).
    """

    call_number: int
    purpose: Purpose
    backend: str
    model: str
    bytes_sent: int
    bytes_received: int
    used_s: float
    abandoned: bool = False
    """Whether it was aborted before its answer was complete, or has not ended."""
    status: int | None = None
    """The HTTP status of the response; None if there was none."""

    @property
    def may_cost(self) -> bool:
        """Whether the backend may have worked on it: the request was sent, and not refused."""
        return self.bytes_sent > 0 and (self.status is None or self.status < 400)


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one call. ``output`` includes ``reasoning``. ``input`` includes those that were read from the
    provider's cache (``cached``), and those that were written into it, for minutes or for an hour. ``estimated``: a
    rough count by the router, since the backend reported none. ``charged_usd``: the price that the backend reported."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    cache_written: int = 0
    cache_written_hour: int = 0
    estimated: bool = False
    charged_usd: float | None = None


@dataclass(frozen=True, slots=True)
class CallCost:
    """The tokens of one call of a cloud model, and its cost in USD; None: unknown."""

    usage: Usage
    usd: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a request. ``known_usd`` is the sum of the known parts; ``unknown`` names the others.

    ``basis``: where prices come from: provider, catalogue, genai-prices, electricity, local (no price of electricity is
    set), none (no call was made that may cost). ``gpu_s``: seconds of local backends. ``usage``: the tokens of the
    answer. ``by_call``: the cloud calls that reported usage, by number. ``baseline_usd``: the answer's cost at the
    baseline model; None: no price.
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
        """The cost in USD; None if a part of it is unknown."""
        return None if self.unknown else self.known_usd

    @property
    def bill_usd(self) -> float | None:
        """What clouds have charged; None: not all is known. Of an answer that broke off only an estimate is."""
        calls = self.by_call.values()
        known = not self.unknown and not any(call.usage.estimated for call in calls)
        return sum(call.usd or 0.0 for call in calls) if known else None


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a request's timeline in the session file; ``started_ms`` counts from the request's arrival."""

    kind: str
    started_ms: float
    duration_ms: float
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything about a finished request. Made once, when its response has closed, for logs, files and metrics."""

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
    """The milliseconds of ``total_ms`` by what they were spent on. They do not overlap; a rest may be left."""
    error_code: str | None = None
    http_status: int = 200
    """The status that the client got, or would have got if the headers had not been sent before the failure."""
    events_unread: int = 0
    search: tuple[int, Mapping[str, Any]] | None = None
    """The number of the search call that found the web context, and the usage that it reported."""
    traffic: Sequence[Traffic] = ()
    client_answer: Mapping[str, Any] | None = None
    """The answer in the form of the client's API, if that is not chat completions."""
    reserved_usd: float | None = None
    """What was reserved for it in the budgets of its key; None: nothing."""

    @property
    def failed(self) -> bool:
        """Whether it ended in an error that is not the client's fault."""
        return self.status is Status.ERROR and (self.http_status >= 500 or self.http_status == 429)
