"""The dial between cost and quality moves COMPLEX and MODERATE, and says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.dial import HIGHEST, LOWEST, NEUTRAL, NOTHING, Dial, at_home, complex_share, dialled
from ai_router.routing.head.store import packaged_head
from ai_router.types import DecidedBy, Decision, Label, route_of

DIAL = Dial(
    (NOTHING, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0),
    (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.08, 0.06, 0.04, 0.02, 0.0),
)


def decision(label: Label, share: float | None, **more: Any) -> Decision:
    return Decision(label, route_of(label), DecidedBy.FAST, "why", confidence=0.8, complex_share=share, **more)


def moderate(share: float | None) -> Decision:
    return decision(Label.MODERATE, share)


def demanding(share: float | None) -> Decision:
    return decision(Label.COMPLEX, share)


def test_without_a_wish_nothing_changes() -> None:
    assert dialled(moderate(0.45), None, DIAL) == moderate(0.45)


def test_a_higher_quality_sends_to_the_cloud_what_might_be_complex() -> None:
    found = dialled(moderate(0.25), 8, DIAL)
    assert (found.label, found.route, found.judged) == (Label.COMPLEX, "xai", Label.MODERATE)
    assert found.reason == "why; quality 8: COMPLEX from 0.2 on, this is 0.25, and would be MODERATE"
    assert found.confidence is None, "a wish has decided it, not a belief"


def test_a_lower_one_keeps_at_home_what_is_not_surely_complex() -> None:
    found = dialled(demanding(0.75), 2, DIAL)
    assert (found.label, found.route, found.judged) == (Label.MODERATE, "primary", Label.COMPLEX)


def test_what_stays_says_what_the_threshold_was() -> None:
    found = dialled(moderate(0.02), 8, DIAL)
    assert (found.label, found.confidence, found.judged) == (Label.MODERATE, 0.8, None)
    assert found.reason == "why; quality 8: COMPLEX from 0.2 on, this is 0.02"


@pytest.mark.parametrize("share", [0.51, 1.0, None])
def test_at_0_nothing_goes_to_the_cloud(share: float | None) -> None:
    found = dialled(demanding(share), LOWEST, DIAL)
    assert found.label is Label.MODERATE
    assert found.reason == "why; quality 0: nothing is COMPLEX, and this would be"


def test_nor_without_a_head_nor_if_it_was_the_conversation_that_has_decided() -> None:
    assert dialled(demanding(None), LOWEST, None).label is Label.MODERATE
    assert at_home(demanding(None), LOWEST).label is Label.MODERATE
    assert at_home(demanding(None), 1).label is Label.COMPLEX


def test_at_10_everything_does_that_has_a_share() -> None:
    assert dialled(moderate(0.0), HIGHEST, DIAL).label is Label.COMPLEX
    assert dialled(moderate(None), HIGHEST, DIAL).label is Label.MODERATE


def test_what_needs_the_web_still_does() -> None:
    live = decision(Label.ENRICH, 0.9)
    assert {dialled(live, quality, DIAL).label for quality in (HIGHEST, LOWEST)} == {Label.ENRICH}


@pytest.mark.parametrize("decided", [moderate(0.02), demanding(None), decision(Label.ENRICH, 0.9)])
def test_a_decision_says_which_quality_was_wanted(decided: Decision) -> None:
    assert dialled(decided, 3, DIAL).quality == at_home(decided, 3).quality == 3
    assert dialled(decided, None, DIAL).quality is at_home(decided, None).quality is None


def test_a_decider_without_probabilities_keeps_its_label_and_the_reason_says_so() -> None:
    found = dialled(demanding(None), 3, DIAL)
    assert found.label is Label.COMPLEX
    assert found.reason == "why; quality 3 has no effect: the decider gave no probabilities"


def test_without_a_head_there_are_no_thresholds_and_the_reason_says_so() -> None:
    found = dialled(demanding(0.6), 1, None)
    assert found.label is Label.COMPLEX
    assert "quality 1 has no effect" in found.reason


@pytest.mark.parametrize("label", [Label.MODERATE, Label.COMPLEX])
@pytest.mark.parametrize("quality", range(LOWEST, HIGHEST + 1))
@pytest.mark.parametrize("share", [0.0, 0.05, 0.35, 0.5, 0.65, 0.95, 1.0])
def test_it_only_moves_the_way_it_is_turned(label: Label, quality: int, share: float) -> None:
    """Also where the share is the head's and the label the classifier's."""
    moved = dialled(decision(label, share), quality, DIAL).judged
    assert moved in {None, Label.MODERATE if quality > NEUTRAL else Label.COMPLEX}
    if quality == NEUTRAL:
        assert moved is None


@given(st.floats(0, 1), st.integers(LOWEST, HIGHEST - 1))
def test_what_goes_to_the_cloud_at_one_quality_goes_there_at_the_next(share: float, quality: int) -> None:
    likelier = demanding(share) if share >= 0.5 else moderate(share)
    goes = [dialled(likelier, each, DIAL).label is Label.COMPLEX for each in (quality, quality + 1)]
    assert goes[1] or not goes[0]


def test_a_share_is_of_complex_among_the_two() -> None:
    assert complex_share({Label.MODERATE: 0.3, Label.COMPLEX: 0.1, Label.ENRICH: 0.6}) == pytest.approx(0.25)
    assert complex_share({Label.ENRICH: 1.0}) is None


def test_the_packaged_head_has_a_dial_that_rises() -> None:
    dial = packaged_head().dial
    assert dial is not None
    assert list(dial.thresholds) == sorted(dial.thresholds, reverse=True)
    assert list(dial.accepted) == sorted(dial.accepted, reverse=True)
    assert (dial.thresholds[LOWEST], dial.thresholds[NEUTRAL], dial.accepted[LOWEST]) == (NOTHING, 0.5, 1.0)
