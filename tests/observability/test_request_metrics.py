"""What Prometheus is shown of requests."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ai_router.observability.request_metrics import DURATION_BUCKETS, LossMetrics, ModelNames, RequestMetrics
from ai_router.types import CallCost, Cost, Status, Usage
from tests.outcomes import FREE, attempt, call, outcome

GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "primary",
    "gen_ai_request_model": "m",
    "route": "primary",
}


def counted(*outcomes: Any, cost: Cost = FREE) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, ModelNames({"m", "grok"}), lambda backend: backend == "primary")
    for one in outcomes:
        metrics.finished(one, cost)
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_a_request_is_counted_with_its_duration_under_the_names_of_the_conventions() -> None:
    registry = counted(outcome())
    assert value(registry, "gen_ai_server_request_duration_seconds_sum", **GEN_AI, error_type="") == 0.1
    assert value(registry, "ai_router_requests_total", route="primary", status="ok", stream="false") == 1


def test_the_buckets_resolve_a_millisecond_to_a_minute_and_have_the_targets_among_them() -> None:
    assert (DURATION_BUCKETS[0], DURATION_BUCKETS[-1]) == (0.001, 60.0)
    assert {0.3, 1.5, 3.5, 6.0} <= set(DURATION_BUCKETS)
    assert list(DURATION_BUCKETS) == sorted(DURATION_BUCKETS)


def test_tokens_by_kind() -> None:
    registry = counted(outcome(), cost=Cost(0.0, ("local",), usage=Usage(10, 20, 4, 6)))
    assert value(registry, "gen_ai_client_token_usage_sum", **GEN_AI, gen_ai_token_type="output") == 20
    for kind, tokens in (("input", 10), ("output", 20), ("cached", 4), ("reasoning", 6)):
        labels = {"backend": "primary", "model": "m", "route": "primary", "type": kind}
        assert value(registry, "ai_router_tokens_total", **labels) == tokens


def test_a_stream_has_a_first_token_and_a_pace() -> None:
    streamed = outcome(timings={"total_ms": 300.0, "ttft_ms": 90.0}, parts={"stream": 190.0})
    registry = counted(streamed)
    assert value(registry, "gen_ai_server_time_to_first_token_seconds_sum", **GEN_AI) == 0.09
    assert value(registry, "gen_ai_server_time_per_output_token_seconds_sum", **GEN_AI) == 0.01


def test_errors_say_whose_fault_they_are() -> None:
    ours = outcome(status=Status.ERROR, http_status=502, error="x", error_code="upstream_failed")
    theirs = outcome(status=Status.ERROR, http_status=404, error="x", error_code="model_not_found", route="none")
    registry = counted(ours, theirs)
    name = "ai_router_errors_total"
    assert value(registry, name, route="primary", code="upstream_failed", fault="service") == 1
    assert value(registry, name, route="none", code="model_not_found", fault="client") == 1


def test_what_a_backend_calls_its_errors_makes_no_labels() -> None:
    outcomes = [outcome(status=Status.ERROR, http_status=502, error="x", error_code=f"made-up-{n}") for n in range(99)]
    registry = counted(*outcomes)
    assert value(registry, "ai_router_errors_total", route="primary", code="other", fault="service") == 99


def test_a_request_that_failed_is_told_of_with_the_backend_s_own_model() -> None:
    failed = outcome(attempts=(attempt("xai", "grok", None, error="x"),), model="m", status=Status.ERROR)
    registry = counted(failed)
    labels = {**GEN_AI, "gen_ai_provider_name": "xai", "gen_ai_request_model": "grok", "error_type": ""}
    assert value(registry, "gen_ai_server_request_duration_seconds_count", **labels) == 1


def test_the_stages_of_a_request_add_up_to_it() -> None:
    registry = counted(outcome())
    stages = outcome().parts
    sums = [value(registry, "ai_router_stage_seconds_sum", stage=stage) or 0.0 for stage in stages]
    assert sum(sums) == pytest.approx(0.1)


def test_cost_is_counted_where_it_is_known_and_said_where_it_is_not() -> None:
    paid = outcome(attempts=(attempt("xai", "grok"),), traffic=(call("xai", "grok"),), route="xai", model="grok")
    known = counted(paid, cost=Cost(0.02, ("provider",), by_call={1: CallCost(Usage(1, 1), 0.02)}))
    assert value(known, "ai_router_cost_usd_total", route="xai", model="grok") == 0.02
    assert value(known, "ai_router_cost_unknown_total", route="xai") is None
    unknown = counted(paid, cost=Cost(0.0, (), unknown=("xai: no price known",)))
    assert value(unknown, "ai_router_cost_unknown_total", route="xai") == 1
    assert value(unknown, "ai_router_cost_usd_total", route="xai", model="grok") is None


def test_local_answers_save_what_the_baseline_would_have_cost() -> None:
    cost = Cost(0.01, ("electricity",), usage=Usage(1, 1), gpu_s=0.5, baseline_usd=0.5)
    registry = counted(outcome(), cost=cost)
    assert value(registry, "ai_router_saved_usd_total") == 0.49
    assert value(registry, "ai_router_gpu_seconds_total", backend="primary") == 0.5


def test_bytes_say_whether_they_left_the_house() -> None:
    registry = counted(outcome(traffic=(call(), call("xai", call_number=2))))
    labels = {"direction": "sent"}
    assert value(registry, "ai_router_backend_bytes_total", backend="xai", local="false", **labels) == 100
    assert value(registry, "ai_router_backend_bytes_total", backend="primary", local="true", **labels) == 100


def test_models_that_nobody_knows_do_not_make_labels_without_end() -> None:
    asked = [outcome(attempts=(attempt(model=f"vendor/new-{number}"),)) for number in range(500)]
    failed = [outcome(attempts=(), model=f"made-up-{n}", status=Status.ERROR, http_status=404) for n in range(500)]
    registry = counted(*asked, *failed)
    models = {
        sample.labels["gen_ai_request_model"]
        for family in registry.collect()
        for sample in family.samples
        if "gen_ai_request_model" in sample.labels
    }
    assert 50 <= len(models) <= 53
    assert "other" in models


def test_what_was_lost_is_counted() -> None:
    registry = CollectorRegistry()
    losses = LossMetrics(registry)
    losses.session()
    losses.rows(3)
    losses.outcome()
    assert value(registry, "ai_router_sessions_lost_total") == 1
    assert value(registry, "ai_router_usage_rows_lost_total") == 3
    assert value(registry, "ai_router_outcomes_dropped_total") == 1


def test_names_of_models_have_labels_that_are_few_and_short() -> None:
    names = ModelNames({"m"})
    assert names.label("m", answered=False) == "m"
    assert names.label("a" * 101, answered=True) == "other"
    assert names.label("never answered", answered=False) == "other"
    assert [names.label(f"m{number}", answered=True) for number in range(60)][48:52] == ["m48", "m49", "other", "other"]
