"""Prometheus metrics of requests: how long they took, how many tokens they used, what they cost; and what was lost.

Names are those of the OpenTelemetry conventions for generative AI (semconv 1.38, gen-ai-metrics) where one fits, in the
form that Prometheus gives them. The values of all labels are bounded: enums, configured backends, and models of the
catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from ai_router.errors import RouterError
from ai_router.observability.metrics import CONFIDENCE_BUCKETS
from ai_router.types import Attempt, Cost, Outcome, Status, Traffic, Usage

DURATION_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 2.5, 3.5, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0),
)
"""In seconds, from a millisecond to a minute; the limits of all targets are among them."""
_TOKEN_TIME_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.004, 0.005, 0.0075, 0.01, 0.02),
    *(0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0),
)
_TOKEN_BUCKETS = tuple(4.0**power for power in range(12))
"""1 to 4,194,304, as the conventions recommend."""

_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "route")
_OPERATION = "chat"
_MAX_OTHER_MODELS = 50
_MAX_NAME_CHARS = 100


class ModelNames:
    """Which models have a label of their own: those ``known`` at the start, and the first 50 others of at most 100
    characters that answered. A client or a provider may name any model, and each label value is a series that is kept
    for ever."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)
        self._other_models: set[str] = set()

    def label(self, model: str, *, answered: bool) -> str:
        """The label of a model: its name, or "other". ``answered``: whether the model answered this request."""
        if model in self._known or model in self._other_models:
            return model
        if answered and len(self._other_models) < _MAX_OTHER_MODELS and len(model) <= _MAX_NAME_CHARS:
            self._other_models.add(model)
            return model
        return "other"


def error_codes() -> frozenset[str]:
    """Every code of a RouterError, and those of validation and of known providers."""
    classes, codes = [RouterError], set(_OTHER_CODES)
    while classes:
        kind = classes.pop()
        classes += kind.__subclasses__()
        codes |= {kind.code} if kind.code else set()
    return frozenset(codes)


_OTHER_CODES = (
    *("invalid_json", "invalid_type", "invalid_value", "empty_array", "missing_required_parameter", "failed"),
    *("context_length_exceeded", "content_filter", "credit_balance_exhausted", "server_is_overloaded", "slow_down"),
)
_CODES = error_codes()


def _code_label(code: str | None) -> str:
    """The label of an error's code: the code, "other" if it is none of ``error_codes``, "" for None."""
    return "" if not code else code if code in _CODES else "other"


class _Labelled:
    """A metric whose children are kept by their labels: prometheus-client's own look-up takes longer than counting."""

    __slots__ = ("_known", "_metric")

    def __init__(self, metric: Counter | Histogram | Summary) -> None:
        self._metric = metric
        self._known: dict[tuple[str, ...], Any] = {}

    def labels(self, *labels: str) -> Any:
        """The child with these label values."""
        child = self._known.get(labels)
        if child is None:
            child = self._known[labels] = self._metric.labels(*labels)
        return child


class LossMetrics:
    """Counts what should have been kept and was not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sessions = Counter("ai_router_sessions_lost", "Session files that were not written", registry=registry)
        self._rows = Counter("ai_router_usage_rows_lost", "Rows of usage that are gone", registry=registry)
        self._outcomes = Counter("ai_router_outcomes_dropped", "Requests that nothing was kept of", registry=registry)

    def session(self) -> None:
        """A session file could not be written."""
        self._sessions.inc()

    def rows(self, count: int) -> None:
        """``count`` rows of usage are gone: neither in the database nor in the spill file."""
        self._rows.inc(count)

    def outcome(self) -> None:
        """An outcome was dropped because too many were waiting."""
        self._outcomes.inc()


class RequestMetrics:
    """Counts outcomes and their costs. ``is_local``: whether a backend, by its name, is in the local network."""

    def __init__(self, registry: CollectorRegistry, names: ModelNames, is_local: Callable[[str], bool]) -> None:
        self._names = names
        self._is_local = is_local

        def histogram(
            name: str, text: str, labels: Sequence[str], buckets: Sequence[float] = DURATION_BUCKETS
        ) -> _Labelled:
            return _Labelled(Histogram(name, text, labels, buckets=buckets, registry=registry))

        def counter(name: str, text: str, *labels: str) -> _Labelled:
            return _Labelled(Counter(name, text, labels, registry=registry))

        self._duration = histogram(
            "gen_ai_server_request_duration_seconds",
            "From a request's arrival until its response has closed",
            (*_GEN_AI, "error_type"),
        )
        self._ttft = histogram(
            "gen_ai_server_time_to_first_token_seconds", "From arrival to a stream's first byte", _GEN_AI
        )
        self._time_per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Between two tokens of a stream, after the first",
            _GEN_AI,
            _TOKEN_TIME_BUCKETS,
        )
        self._token_usage = histogram(
            "gen_ai_client_token_usage", "Tokens of an answer", (*_GEN_AI, "gen_ai_token_type"), _TOKEN_BUCKETS
        )
        self._operation_duration = histogram(
            "gen_ai_client_operation_duration_seconds",
            "Calls of backends for an answer",
            ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"),
        )
        self._backend_ttft = histogram(
            "ai_router_backend_ttft_seconds", "From a call of a backend to its first event", ("backend", "model")
        )
        # A summary: the averages of the stages add up to the average request, which quantiles do not.
        self._stages = _Labelled(
            Summary(
                "ai_router_stage_seconds",
                "What requests spend their time on, each moment counted once",
                ["stage"],
                registry=registry,
            )
        )
        self._confidence = histogram(
            "ai_router_decision_confidence", "Confidence of decisions", ("decided_by",), CONFIDENCE_BUCKETS
        )
        self._cancel_seconds = Histogram(
            "ai_router_cancel_seconds",
            "From a client's disconnect or cancel call to the end of the request",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._requests = counter("ai_router_requests", "Requests by how they ended", "route", "status", "stream")
        self._errors = counter("ai_router_errors", "Errors, and whose fault they were", "route", "code", "fault")
        self._tokens = counter("ai_router_tokens", "Tokens of answers", "backend", "model", "route", "type")
        self._estimated = counter("ai_router_usage_estimated", "Answers whose backend sent no usage", "backend")
        self._cost = counter("ai_router_cost_usd", "What requests cost, as far as it is known", "route", "model")
        self._unknown = counter("ai_router_cost_unknown", "Requests whose cost is not, or not all, known", "route")
        self._saved = Counter(
            "ai_router_saved_usd", "Local answers at the baseline model's price, less their cost", registry=registry
        )
        self._gpu = counter("ai_router_gpu_seconds", "Time of local backends", "backend")
        self._bytes = counter("ai_router_backend_bytes", "Bodies sent and received", "backend", "local", "direction")

    def finished(self, outcome: Outcome, cost: Cost) -> None:
        """Count a request that has ended. A sink of the recorder."""
        answer = outcome.attempts[-1] if outcome.attempts else None
        model_name = answer.model if answer else outcome.model or ""
        model = self._names.label(model_name, answered=outcome.status is Status.OK) if model_name else ""
        labels = (_OPERATION, answer.backend if answer else "", model, outcome.route)
        error = _code_label(outcome.error_code)
        self._duration.labels(*labels, error).observe(outcome.timings["total_ms"] / 1000)
        self._requests.labels(outcome.route, outcome.status, "true" if outcome.request.stream else "false").inc()
        if outcome.status is Status.ERROR:
            self._errors.labels(outcome.route, error, "service" if outcome.failed else "client").inc()
        for stage, ms in outcome.parts.items():
            self._stages.labels(stage).observe(ms / 1000)
        if (cancel_ms := outcome.timings.get("cancel_ms")) is not None:
            self._cancel_seconds.observe(cancel_ms / 1000)
        if outcome.decision is not None and outcome.decision.confidence is not None:
            self._confidence.labels(outcome.decision.decided_by).observe(outcome.decision.confidence)
        for attempt in outcome.attempts:
            self._count_attempt(attempt)
        if cost.usage is not None and answer is not None:
            self._count_usage(labels, cost.usage)
        if outcome.status is Status.OK and (ttft_ms := outcome.timings.get("ttft_ms")) is not None:
            self._ttft.labels(*labels).observe(ttft_ms / 1000)
            self._count_time_per_token(labels, outcome, cost.usage)
        for call in outcome.traffic:
            self._count_traffic(call)
        self._count_cost(outcome, cost, model)

    def refused(self, error: RouterError) -> None:
        """Count a request that was refused before it was read: without a key, malformed, or one too many."""
        fault = "service" if error.status >= 500 or error.status == 429 else "client"
        self._errors.labels("none", _code_label(error.code), fault).inc()

    def _count_attempt(self, attempt: Attempt) -> None:
        model = self._names.label(attempt.model, answered=attempt.error is None)
        error = "" if attempt.error is None else _code_label(attempt.error_code or "failed")
        self._operation_duration.labels(_OPERATION, attempt.backend, model, error).observe(attempt.duration_ms / 1000)
        if attempt.ttft_ms is not None:
            self._backend_ttft.labels(attempt.backend, model).observe(attempt.ttft_ms / 1000)

    def _count_usage(self, labels: tuple[str, str, str, str], usage: Usage) -> None:
        self._token_usage.labels(*labels, "input").observe(usage.input)
        self._token_usage.labels(*labels, "output").observe(usage.output)
        _, backend, model, route = labels
        counts = (("input", usage.input), ("output", usage.output), ("cached", usage.cached))
        for kind, count in (*counts, ("reasoning", usage.reasoning)):
            if count:
                self._tokens.labels(backend, model, route, kind).inc(count)
        if usage.estimated:
            self._estimated.labels(backend).inc()

    def _count_time_per_token(self, labels: tuple[str, str, str, str], outcome: Outcome, usage: Usage | None) -> None:
        stream_ms = outcome.parts.get("stream")
        if usage is not None and usage.output > 1 and stream_ms is not None:
            self._time_per_token.labels(*labels).observe(stream_ms / 1000 / (usage.output - 1))

    def _count_traffic(self, call: Traffic) -> None:
        local = self._is_local(call.backend)
        local_label = "true" if local else "false"
        self._bytes.labels(call.backend, local_label, "sent").inc(call.bytes_sent)
        self._bytes.labels(call.backend, local_label, "received").inc(call.bytes_received)
        if local:
            self._gpu.labels(call.backend).inc(max(call.used_s, 0.0))

    def _count_cost(self, outcome: Outcome, cost: Cost, model: str) -> None:
        if cost.known_usd:
            self._cost.labels(outcome.route, model).inc(cost.known_usd)
        if cost.unknown:
            self._unknown.labels(outcome.route).inc()
        if cost.baseline_usd is not None and outcome.attempts and self._is_local(outcome.attempts[-1].backend):
            self._saved.inc(max(cost.baseline_usd - cost.known_usd, 0.0))
