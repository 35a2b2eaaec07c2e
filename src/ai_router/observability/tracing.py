"""OpenTelemetry spans of a request, all made after it has ended. While it is under way only two random ids are made.

The names of attributes are those of the OpenTelemetry conventions for generative AI (semconv 1.38). Backends are sent
the ids of spans that do not exist yet (see trace_context).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ai_router import __version__
from ai_router.observability.redaction import Scrubber
from ai_router.trace_context import SAMPLED, Trace, begin_trace
from ai_router.types import Cost, Outcome, Purpose, Step
from ai_router.types import Status as RequestStatus

_SCOPE = InstrumentationScope("ai_router", __version__)
_EVENT_KINDS = frozenset({"retry", "fallback"})
"""Kinds of steps that become events of the request's span; all others become spans."""
_PURPOSES = {
    "classification": Purpose.CLASSIFICATION,
    "speculation": Purpose.SPECULATION,
    "enrichment": Purpose.SEARCH,
}
"""The purpose of the call that a step stands for, by the kind of the step."""
_SPAN_NAMES = {"classification": "classify", "speculation": "speculate", "enrichment": "enrich"}


def exporting_processor() -> SpanProcessor:
    """Sends spans in batches, on a thread of its own, to the collector that OTEL_EXPORTER_OTLP_* name."""
    return BatchSpanProcessor(OTLPSpanExporter())


class Tracing:
    """Begins the trace of each request and makes its spans. The OTEL_* variables are read by OpenTelemetry itself.

    ``processor`` takes the finished spans. ``rng`` makes the ids; by default they are unpredictable.
    """

    def __init__(
        self, processor: SpanProcessor, scrubber: Scrubber | None = None, rng: random.Random | None = None
    ) -> None:
        self._processor = processor
        self._scrub = (scrubber or Scrubber()).text
        self._rng = rng or random.SystemRandom()
        self._resource = Resource.create({"service.name": "ai-router", "service.version": __version__})
        # The provider is made for its sampler only, which is the one that OTEL_TRACES_SAMPLER names.
        self._sampler = TracerProvider(resource=self._resource).sampler

    def begin(self, traceparent: str | None) -> Trace:
        """The trace of a request, of its client's ``traceparent`` or new, with the sampler's decision in its flags."""
        trace = begin_trace(traceparent, self._rng)
        parent = None
        if trace.parent_id is not None:
            context = SpanContext(trace.trace_id, trace.parent_id, is_remote=True, trace_flags=TraceFlags(trace.flags))
            parent = set_span_in_context(NonRecordingSpan(context), Context())
        decision = self._sampler.should_sample(parent or Context(), trace.trace_id, "chat").decision
        flags = SAMPLED if decision is Decision.RECORD_AND_SAMPLE else 0
        return dataclasses.replace(trace, flags=flags)

    def finished(self, outcome: Outcome, cost: Cost) -> None:
        """Make the spans of a request that has ended and give them to the processor. A sink of the recorder."""
        trace = outcome.request.trace
        if outcome.request.local_only:
            # Spans have what backends say, who may quote the request; and a collector may be anywhere.
            return
        if trace is not None and trace.span_id is not None and trace.flags & SAMPLED:
            for span in _Spans(outcome, cost, trace, self._resource, self._rng, self._scrub).all():
                self._processor.on_end(span)

    def close(self) -> None:
        """Send what waits, then stop."""
        self._processor.shutdown()


@dataclass(frozen=True, slots=True)
class _Spans:
    """Makes the spans of one outcome."""

    outcome: Outcome
    cost: Cost
    trace: Trace
    resource: Resource
    rng: random.Random
    scrub: Callable[[str], str]

    def all(self) -> Iterator[ReadableSpan]:
        """The span of the request, then one for the decision, one for each step, and one for the relay of a stream."""
        outcome, root = self.outcome, self.trace.span_id
        parts = outcome.parts
        yield self._request_span()
        if "decide_ms" in outcome.timings:
            started_ms, duration_ms = parts.get("receive", 0.0), outcome.timings["decide_ms"]
            yield self._span("decide", started_ms, duration_ms, root, _decision_attributes(outcome))
        for step in outcome.steps:
            if step.kind == "provider_call":
                yield self._call_span(step)
            elif step.kind not in _EVENT_KINDS:
                detail = {name: value for name, value in step.detail.items() if name != "context"}
                attributes = {f"ai_router.{step.kind}.{name}": value for name, value in detail.items()}
                name = _SPAN_NAMES.get(step.kind, step.kind)
                yield self._span(
                    name, step.started_ms, step.duration_ms, root, attributes, span_id=self._span_id_of(step)
                )
        if (stream_ms := parts.get("stream")) is not None:
            yield self._span("relay", outcome.timings["total_ms"] - stream_ms, stream_ms, root, {})

    def _request_span(self) -> ReadableSpan:
        outcome, request = self.outcome, self.outcome.request
        usage = self.cost.usage
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": request.model,
            "gen_ai.response.model": outcome.model,
            "gen_ai.provider.name": outcome.attempts[-1].backend if outcome.attempts else None,
            "gen_ai.usage.input_tokens": usage.input if usage else None,
            "gen_ai.usage.output_tokens": usage.output if usage else None,
            "ai_router.route": outcome.route,
            "ai_router.session_id": request.session_id,
            "ai_router.request_id": request.request_id,
            "ai_router.reason": outcome.reason,
            "ai_router.speculation": outcome.speculation,
            "ai_router.cost_usd": self.cost.usd,
            "ai_router.stream": request.stream,
            "error.type": outcome.error_code,
        }
        failed = outcome.status is RequestStatus.ERROR
        return self._span(
            f"chat {outcome.model or request.model}",
            0.0,
            outcome.timings["total_ms"],
            self.trace.parent_id,
            attributes | _decision_attributes(outcome),
            span_id=self.trace.span_id,
            kind=SpanKind.SERVER,
            error=outcome.error if failed else None,
            events=tuple(self._event(step) for step in outcome.steps if step.kind in _EVENT_KINDS),
        )

    def _call_span(self, step: Step) -> ReadableSpan:
        detail = step.detail
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": detail.get("backend"),
            "gen_ai.request.model": detail.get("model"),
            "gen_ai.response.finish_reasons": (detail["finish_reason"],) if detail.get("finish_reason") else None,
            "http.response.status_code": detail.get("status"),
            "ai_router.speculative": detail.get("speculative"),
            "ai_router.connect_ms": detail.get("connect_ms"),
            "ai_router.ttft_ms": detail.get("ttft_ms"),
            "error.type": "failed" if detail.get("error") else None,
        }
        error = detail.get("error")
        number = detail.get("leg")
        return self._span(
            f"chat {detail.get('model')}",
            step.started_ms,
            step.duration_ms,
            self.trace.span_id,
            attributes,
            span_id=None if number is None else self.trace.call_span(number),
            kind=SpanKind.CLIENT,
            error=error,
        )

    def _span_id_of(self, step: Step) -> int | None:
        """The span id that was sent to the backend with the call of this step. None if there was no call, or if the
        call gave the answer: then the span of that ``provider_call`` has the id."""
        taken = {attempt.call_number for attempt in self.outcome.attempts}
        purpose = _PURPOSES.get(step.kind)
        numbers = [
            call.call_number
            for call in self.outcome.traffic
            if call.purpose is purpose and call.call_number not in taken
        ]
        return self.trace.call_span(numbers[0]) if numbers else None

    def _span(
        self,
        name: str,
        started_ms: float,
        duration_ms: float,
        parent: int | None,
        attributes: Mapping[str, Any],
        *,
        span_id: int | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str | None = None,
        events: tuple[Event, ...] = (),
    ) -> ReadableSpan:
        start = self._unix_ns(started_ms)
        return ReadableSpan(
            name=name,
            context=self._context(span_id or self.rng.getrandbits(64) or 1),
            parent=None if parent is None else self._context(parent),
            resource=self.resource,
            attributes={key: self._scrubbed(value) for key, value in attributes.items() if value is not None},
            events=events,
            kind=kind,
            instrumentation_scope=_SCOPE,
            status=Status(StatusCode.UNSET) if error is None else Status(StatusCode.ERROR, self.scrub(error)),
            start_time=start,
            end_time=start + round(duration_ms * 1e6),
        )

    def _scrubbed(self, value: Any) -> Any:
        return self.scrub(value) if isinstance(value, str) else value

    def _event(self, step: Step) -> Event:
        attributes = {name: self.scrub(str(value)) for name, value in step.detail.items()}
        return Event(step.kind, attributes, self._unix_ns(step.started_ms))

    def _context(self, span_id: int) -> SpanContext:
        return SpanContext(self.trace.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(SAMPLED))

    def _unix_ns(self, ms: float) -> int:
        return round(self.outcome.request.timestamp.timestamp() * 1e9 + ms * 1e6)


def _decision_attributes(outcome: Outcome) -> dict[str, Any]:
    decision = outcome.decision
    if decision is None:
        return {}
    return {
        "ai_router.label": decision.label,
        "ai_router.decided_by": decision.decided_by,
        "ai_router.confidence": decision.confidence,
    }
