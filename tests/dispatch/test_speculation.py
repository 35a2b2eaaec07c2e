"""When the primary is called before the decision, and what may be wasted on it."""

from __future__ import annotations

import pytest

from ai_router.config import SpeculationMode
from ai_router.dispatch.speculation import Budget, Pressure, waiting_in, why_not
from ai_router.routing.head.model import Guess
from ai_router.types import Label

IDLE = Pressure(waiting=0, budget_left_s=30)


def guess(moderate: float) -> Guess:
    shares = {Label.MODERATE: moderate, Label.COMPLEX: 1 - moderate, Label.ENRICH: 0.0}
    label = max(shares, key=shares.__getitem__)
    return Guess(label, shares, max(moderate, 1 - moderate), False, "")


@pytest.mark.parametrize(
    ("mode", "share", "pressure", "why"),
    [
        ("auto", 0.6, IDLE, None),
        ("auto", None, IDLE, None),
        ("auto", 0.2, IDLE, "unlikely"),
        ("auto", 0.6, Pressure(1, 30), "saturated"),
        ("auto", 0.6, Pressure(None, 30), None),
        ("auto", 0.6, Pressure(0, 0), "budget"),
        ("always", 0.01, Pressure(9, -5), None),
        ("off", 0.99, IDLE, "off"),
    ],
)
def test_the_policy(mode: str, share: float | None, pressure: Pressure, why: str | None) -> None:
    assert why_not(SpeculationMode(mode), None if share is None else guess(share), pressure) == why


def test_the_budget_is_spent_and_comes_back_over_a_minute() -> None:
    now = [0.0]
    budget = Budget(30, clock=lambda: now[0])
    budget.spend(40)
    assert budget.left_s() == -10
    now[0] = 20
    assert budget.left_s() == 0
    now[0] = 600
    assert budget.left_s() == 30


def test_the_waiting_gauge_of_vllm_is_summed_over_its_engines() -> None:
    text = (
        b"# HELP vllm:num_requests_waiting Number of requests waiting.\n# TYPE vllm:num_requests_waiting gauge\n"
        b'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0\n'
        b'vllm:num_requests_waiting{engine="1",model_name="m"} 1.0\n'
        b'vllm:num_requests_waiting_total{engine="1"} 7.0\n'
    )
    assert waiting_in(text) == 3


def test_llama_cpp_calls_them_deferred() -> None:
    assert waiting_in(b"llamacpp:requests_processing 1\nllamacpp:requests_deferred 4\n") == 4


def test_a_backend_that_does_not_tell_is_not_taken_for_idle() -> None:
    assert waiting_in(b"up 1\n") is None


@pytest.mark.parametrize("value", [b"+Inf", b"1e999", b"NaN", b"1.2.3", b"-1", b""])
def test_a_gauge_that_is_no_count_is_no_answer(value: bytes) -> None:
    assert waiting_in(b"vllm:num_requests_waiting " + value + b"\n") is None


def test_a_label_may_hold_braces() -> None:
    assert waiting_in(b'vllm:num_requests_waiting{model_name="a}b{"} 2.0\n') == 2
