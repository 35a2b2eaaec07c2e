"""Spans of a request, made when it is over."""

from __future__ import annotations

import random
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ai_router.observability.redaction import Scrubber
from ai_router.observability.tracing import Tracing
from ai_router.types import Cost, Purpose, Status, Step, Usage
from tests.chat_requests import chat_request
from tests.outcomes import attempt, call, outcome

CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COST = Cost(0.5, ("provider",), usage=Usage(10, 20))


def traced(header: str | None = CLIENTS, **changes: Any) -> tuple[dict[str, ReadableSpan], Any]:
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter), Scrubber(["xai-secret-key"]), random.Random(1))
    trace = tracing.begin(header)
    detail = {"backend": "primary", "model": "m", "status": 200, "finish_reason": "stop", "leg": 2, "error": None}
    steps = (
        Step("classification", 1.0, 30.0, {"label": "MODERATE", "confidence": 0.9}),
        Step("speculation", 1.0, 31.0, {"result": "hit"}),
        Step("retry", 40.0, 0.0, {"backend": "primary", "delay_ms": 5.0}),
        Step("provider_call", 2.0, 90.0, detail),
    )
    changes.setdefault("model", "answerer")
    finished = outcome(
        request=chat_request("my words", trace=trace),
        steps=steps,
        attempts=(attempt(call_number=2),),
        traffic=(
            call("classifier", call_number=1, purpose=Purpose.CLASSIFICATION),
            call(call_number=2, purpose=Purpose.SPECULATION),
        ),
        **changes,
    )
    tracing.finished(finished, COST)
    return {str(span.name): span for span in exporter.get_finished_spans()}, trace


def test_the_request_is_a_server_s_span_below_the_client_s() -> None:
    spans, trace = traced()
    root = next(span for span in spans.values() if span.kind is SpanKind.SERVER)
    assert root.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert root.parent.span_id == 0xB7AD6B7169203331
    assert root.context.span_id == trace.span_id
    assert root.end_time - root.start_time == 100_000_000
    assert root.attributes["gen_ai.usage.output_tokens"] == 20
    assert root.attributes["gen_ai.provider.name"] == "primary"
    assert [event.name for event in root.events] == ["retry"]


def test_deciding_speculating_each_attempt_and_the_relay_are_spans_below_it() -> None:
    spans, trace = traced(timings={"total_ms": 100.0, "decide_ms": 31.0})
    assert {"decide", "classify", "speculate", "relay"} < set(spans)
    below = [span for span in spans.values() if span.kind is not SpanKind.SERVER]
    assert {span.parent.span_id for span in below} == {trace.span_id}
    assert len({span.context.span_id for span in spans.values()}) == len(spans)


def test_a_call_has_the_very_id_that_its_backend_was_told() -> None:
    spans, trace = traced()
    attempted = spans["chat m"]
    assert attempted.kind is SpanKind.CLIENT
    assert trace.header(2) == f"00-{trace.trace_id:032x}-{attempted.context.span_id:016x}-01"
    assert trace.header(1) == f"00-{trace.trace_id:032x}-{spans['classify'].context.span_id:016x}-01"
    assert attempted.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_a_failed_request_has_a_failed_span() -> None:
    spans, _ = traced(model="x", status=Status.ERROR, error="xai: xai-secret-key is bad", error_code="upstream_failed")
    root = spans["chat x"]
    assert root.status.status_code is StatusCode.ERROR
    assert root.attributes["error.type"] == "upstream_failed"
    assert "secret" not in str(root.status.description)


def test_no_words_and_no_keys_are_in_spans() -> None:
    spans, _ = traced(reason="because xai-secret-key")
    for span in spans.values():
        assert "my words" not in str(span.attributes)
        assert "xai-secret-key" not in span.to_json()


def test_a_client_that_does_not_sample_gets_no_spans() -> None:
    spans, trace = traced(CLIENTS[:-1] + "0")
    assert spans == {}
    assert trace.header(1).endswith("-00")


def test_the_sampler_of_the_environment_decides_for_requests_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traced(None)[0]
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert traced(None)[0] == {}
