"""Sessions decided again by another policy."""

from __future__ import annotations

import pytest

from ai_router.learning.replay import policy_named, replay
from ai_router.routing.head.model import Guess
from ai_router.types import Label
from tests.stored_sessions import session


def guessing(label: str, confidence: float = 0.99) -> Guess:
    return Guess(Label(label), {}, confidence, confidence > 0.9, "")


def test_a_sure_head_spares_the_classifier_s_second() -> None:
    result = replay([session()] * 4, policy_named("cascade", lambda _: guessing("MODERATE")))
    assert (result.asked_before, result.asked, result.agreed) == (4, 0, 1.0)
    assert (result.before_ms, result.after_ms) == (1005.0, 55.0)


def test_an_unsure_head_leaves_the_recorded_decision_and_its_time() -> None:
    result = replay([session()], policy_named("cascade", lambda _: guessing("COMPLEX", 0.5)))
    assert (result.asked, result.agreed, result.after_ms) == (1, 1.0, 1005.0)


def test_a_route_that_changes_takes_and_costs_what_that_route_usually_does() -> None:
    times = {"classification_ms": 1000.0, "upstream_ms": 400.0, "ttft_ms": 1400.0}
    dear = session("p", label="COMPLEX", route="xai", cost_usd=0.25, timings=times)
    result = replay([dear, session()], policy_named("primary", lambda _: guessing("COMPLEX")))
    assert result.moved == {("xai", "primary"): 1, ("primary", "primary"): 1}
    assert (result.before_usd, result.after_usd) == (0.25, 0.0)
    assert result.after_ms == 52.5


def test_another_confidence_can_be_tried() -> None:
    policy = policy_named("cascade:0.5", lambda _: guessing("COMPLEX", 0.6))
    assert policy(session()).label == "COMPLEX"


@pytest.mark.parametrize("name", ["nonsense", "cascade:much", "head:0.5", ""])
def test_an_unknown_policy_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"policy|confidence"):
        policy_named(name, lambda _: guessing("MODERATE"))
