"""Usage as backends tell it; what a request cost, and who says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.config_loading import load_settings
from ai_router.providers.building import build_registry
from ai_router.providers.catalogue import Price
from ai_router.providers.pricing import Pricing, baseline_of, charged_usd, genai_price, price_of, usage_of
from ai_router.types import Purpose, Usage
from tests.chat_requests import chat_request
from tests.outcomes import attempt, call, outcome

SETTINGS = {"PRIMARY_URL": "http://gpu", "XAI_API_KEY": "k", "OPENROUTER_API_KEY": "k", "OPENAI_API_KEY": "k"}
REGISTRY = build_registry(load_settings(SETTINGS, dotenv=None))
BASELINE = baseline_of(REGISTRY.catalogue, "grok-4.7")
MILLION = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "total_tokens": 2_000_000}
SMALL = {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}


def pricing(usd_per_gpu_s: float | None = None, public: float | None = None) -> Pricing:
    return Pricing(REGISTRY, BASELINE, usd_per_gpu_s, lambda *_: public)


def of_cloud(backend: str, model: str, usage: dict[str, Any] | None = None, **changes: Any) -> Any:
    return outcome(
        attempts=(attempt(backend, model),), traffic=(call(backend, model),), usage=usage or SMALL, **changes
    )


@pytest.mark.parametrize(
    ("usage", "price", "usd"),
    [
        (Usage(1_000_000, 1_000_000), Price(input=2, output=6), 8.0),
        (Usage(1_000_000, 0, cached=500_000), Price(input=2, output=6, cached=0.5), 1.25),
        (Usage(1_000_000, 0, cache_written=500_000), Price(input=2, output=6), 2.0),
        (Usage(1_000_000, 0, cache_written=500_000), Price(input=2, output=6, cache_write=2.5), 2.25),
        (Usage(1_000_000, 0, cache_written_hour=500_000), Price(input=2, output=6, cache_write_hour=4), 3.0),
        (
            Usage(300_000, 0, cache_written=100_000),
            Price(input=2, output=6, cache_write=2.5, above=200_000, input_above=4),
            0.8 + 0.5,
        ),
        (Usage(1_000_000, 0, cached=500_000), Price(input=2, output=6), 2.0),
        (Usage(100, 0), Price(input=2, output=6, above=100, input_above=4, output_above=12), 0.0002),
        (Usage(1_000_000, 1_000_000), Price(input=2, output=6, above=100, input_above=4, output_above=12), 16.0),
        (Usage(1_000_000, 0, cached=1_000_000), Price(input=2, output=6, cached=1, above=1, input_above=4), 2.0),
        (Usage(5, 5), Price(input=0, output=0, cached=0), 0.0),
    ],
)
def test_a_price_of_the_catalogue(usage: Usage, price: Price, usd: float) -> None:
    assert price_of(usage, price) == pytest.approx(usd)


def test_the_provider_s_own_figure_goes_before_every_price() -> None:
    cost = pricing().cost(of_cloud("xai", "grok-4.7", {**SMALL, "cost_in_usd_ticks": 70_000_000}))
    assert (cost.usd, cost.basis) == (0.007, ("provider",))


def test_the_catalogue_s_price_goes_before_the_public_one() -> None:
    cost = pricing(public=99.0).cost(of_cloud("xai", "grok-4.7"))
    assert cost.usd == pytest.approx(1_000 * 2e-6 + 500 * 6e-6)
    assert cost.basis == ("catalogue",)


def test_the_public_price_stands_in_for_a_model_that_the_catalogue_does_not_have() -> None:
    cost = pricing(public=0.25).cost(of_cloud("openai", "gpt-something"))
    assert (cost.usd, cost.basis) == (0.25, ("genai-prices",))


def test_a_model_without_any_price_is_unknown_and_never_free() -> None:
    cost = pricing().cost(of_cloud("openrouter", "somebody/new-model"))
    assert cost.usd is None
    assert cost.unknown == ("openrouter (somebody/new-model): no price known",)


def test_an_answer_without_usage_is_unknown() -> None:
    cost = pricing().cost(outcome(attempts=(attempt("xai", "grok-4.7"),), traffic=(call("xai", "grok-4.7"),), usage={}))
    assert cost.usd is None
    assert "without a word" in cost.unknown[0]


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"status": 500}, True),
        ({"status": 429}, True),
        ({"status": None, "bytes_sent": 0}, True),
        # It had the request, and then the connection broke, or nothing came in time.
        ({"status": None}, False),
        ({"status": 200, "bytes_received": 900}, False),
    ],
)
def test_a_call_that_was_refused_costs_nothing_and_one_that_broke_off_nobody_knows(
    told: dict[str, Any], known: bool
) -> None:
    failed = outcome(
        attempts=(attempt("xai", "grok-4.7", None, error="x"),), traffic=(call("xai", **told),), usage=None
    )
    assert (pricing().cost(failed).usd == 0.0) is known


def test_a_stream_that_the_client_left_costs_at_least_what_was_seen_of_it() -> None:
    seen = {"prompt_tokens": 1_000, "completion_tokens": 5, "total_tokens": 1_005, "estimated": True}
    left = outcome(
        attempts=(attempt("xai", "grok-4.7"),), traffic=(call("xai", "grok-4.7", abandoned=True),), usage=seen
    )
    cost = pricing().cost(left)
    assert cost.usd is None
    assert cost.known_usd > 0


def test_a_call_that_we_gave_up_on_may_have_cost_something() -> None:
    gone = outcome(attempts=(), traffic=(call("xai", "grok-4.7", abandoned=True),), usage=None)
    assert pricing().cost(gone).usd is None


def test_a_local_answer_costs_seconds_and_says_so() -> None:
    cost = pricing().cost(outcome())
    assert (cost.usd, cost.gpu_s, cost.basis) == (0.0, 0.5, ("local",))


def test_a_local_answer_costs_electricity_where_that_has_a_price() -> None:
    settings = load_settings({**SETTINGS, "ELECTRICITY_USD_PER_KWH": "0.36", "GPU_WATTS": "500"}, dotenv=None)
    assert settings.usd_per_gpu_s == pytest.approx(0.36 * 0.5 / 3600)
    cost = pricing(settings.usd_per_gpu_s).cost(outcome())
    assert cost.usd == pytest.approx(0.5 * 0.36 * 0.5 / 3600)
    assert cost.basis == ("electricity",)


def test_lost_speculations_and_classifications_take_seconds_too() -> None:
    calls = (
        call(),
        call(call_number=2, purpose=Purpose.SPECULATION, used_s=1.0),
        call("classifier", call_number=3, used_s=0.25),
    )
    registry = build_registry(load_settings({**SETTINGS, "ROUTER_URL": "http://small"}, dotenv=None))
    assert Pricing(registry, BASELINE, None).cost(outcome(traffic=calls)).gpu_s == 1.75


def searched(usage: dict[str, Any]) -> Any:
    search = call("xai", "grok-4.3", call_number=1, purpose=Purpose.SEARCH)
    return outcome(attempts=(attempt(call_number=2),), traffic=(search, call(call_number=2)), search=(1, usage))


def test_a_search_is_part_of_the_cost() -> None:
    cost = pricing().cost(searched({"input_tokens": 10, "output_tokens": 5, "cost_in_usd_ticks": 100_000_000}))
    assert (cost.usd, cost.basis) == (0.01, ("provider", "local"))
    assert cost.by_call[1].usd == 0.01


def test_what_a_provider_takes_for_searching_is_unknown_if_it_does_not_say() -> None:
    cost = pricing().cost(searched({"input_tokens": 1_000_000, "output_tokens": 0}))
    assert cost.usd is None
    assert cost.known_usd > 0
    assert cost.unknown == ("xai (grok-4.3): what it charges for searching",)


def test_a_request_that_asked_nobody_cost_nothing() -> None:
    cost = pricing().cost(outcome(attempts=(), traffic=(), usage=None))
    assert (cost.usd, cost.basis) == (0.0, ("none",))


def test_the_baseline_is_the_cloud_that_would_have_answered_otherwise() -> None:
    assert BASELINE is not None
    assert BASELINE.model == "xai/grok-4.7"
    assert pricing().cost(outcome(usage=MILLION)).baseline_usd == pytest.approx(4 + 12)


def test_the_public_prices_know_a_model_by_its_provider_s_address() -> None:
    usd = genai_price(REGISTRY.clouds["openai"], "gpt-6-luna", Usage(1_000_000, 0), chat_request().timestamp)
    assert usd is not None
    assert usd > 0
    assert genai_price(REGISTRY.clouds["openai"], "no-such-model", Usage(1, 1), chat_request().timestamp) is None


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, Usage(5, 3)),
        ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}, Usage(10, 5, 4)),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}},
            Usage(5, 9, 0, 6),
        ),
        # xAI: the reasoning is in the total only.
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "total_tokens": 108,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(5, 103, 0, 100),
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 99}}, Usage(5, 0, 5)),
        ({"prompt_tokens": 5, "completion_tokens": 1, "estimated": True}, Usage(5, 1, estimated=True)),
        ({"prompt_tokens": "many", "completion_tokens": -1, "prompt_tokens_details": None}, Usage(0, 0)),
    ],
)
def test_every_backend_s_words_for_it(told: dict[str, Any], usage: Usage) -> None:
    assert usage_of(told) == usage


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_usage_is_none_and_not_zero(nothing: dict[str, Any] | None) -> None:
    assert usage_of(nothing) is None


@pytest.mark.parametrize(
    ("told", "usd"),
    [
        ({"cost_in_usd_ticks": 12_500_000_000}, 1.25),
        ({"cost": 0.012}, 0.012),
        ({"cost": {"total_cost": 0.5, "input_tokens_cost": 0.1}}, 0.5),
        ({"cost": 0}, 0.0),
        ({"cost_in_usd_ticks": "x"}, None),
        ({"cost": -1}, None),
        ({"cost": True}, None),
        ({"cost": float("inf")}, None),
        ({}, None),
    ],
)
def test_the_provider_s_own_charge(told: dict[str, Any], usd: float | None) -> None:
    assert charged_usd(told) == usd


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["cached_tokens", "total_cost"]), inner, max_size=2),
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cost", "cost_in_usd_ticks"]
        ),
        _ANYTHING,
    )
)
def test_no_shape_of_usage_breaks_it(told: dict[str, Any]) -> None:
    usage = usage_of(told)
    assert usage is None or min(usage.input, usage.output, usage.cached, usage.reasoning) >= 0
