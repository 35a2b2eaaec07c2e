"""Usage as backends tell it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.providers.usage import told_usd, usage_of
from ai_router.types import Usage


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
    assert told_usd(told) == usd


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
