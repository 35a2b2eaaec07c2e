"""Making and calibrating a head, on examples few enough for a test."""

from __future__ import annotations

import pytest

from ai_router.cli.learning import own_dressings, own_examples
from ai_router.learning.distillation import evaluate_head, examples_from_sessions, why_not_install
from ai_router.learning.examples import Example
from ai_router.learning.networks import KnownVectors
from ai_router.learning.training import is_for_calibration, train_head
from ai_router.routing.head.store import packaged_head, packaged_slow_models, unpack_head
from tests.stored_sessions import session


@pytest.fixture(scope="module")
def few() -> list[Example]:
    return own_examples()[0][::12]


def test_groups_are_for_fitting_or_for_calibrating_never_both(few: list[Example]) -> None:
    by_group: dict[str, set[bool]] = {}
    for example in few:
        by_group.setdefault(example.group, set()).add(is_for_calibration(example))
    assert all(len(sides) == 1 for sides in by_group.values())


def test_training_is_reproducible_and_keeps_its_risk(few: list[Example]) -> None:
    asks, dressings = packaged_head().asks, own_dressings(few)
    apart = {"kept_apart_traps", "kept_apart_mixed"}
    slow = packaged_slow_models()
    vectors = KnownVectors(slow.vectors)
    first, again = (
        train_head(
            few, slow.encoder, vectors, asks, dressings, year=2026, weights={}, calibration_sources=apart, risk=0.1
        )
        for _ in range(2)
    )
    assert first.content == again.content
    assert first.risk <= 0.1
    assert first.coverage > 0.3
    head = unpack_head(first.content, slow)
    assert head.metadata["fitted"] == first.fitted
    assert head.guess([{"role": "user", "content": "weather in Oslo tomorrow"}], 2026).label == "ENRICH"


def test_a_student_of_the_sessions_says_what_the_teacher_said(few: list[Example]) -> None:
    """A teacher with a quirk: everything about the tulip exchange is COMPLEX to it."""
    quirks = [f"tulip exchange report number {number}, please" for number in range(150)]
    split = examples_from_sessions(session(text, label="COMPLEX") for text in quirks)
    assert split.training
    assert split.held_out
    present, slow = packaged_head(), packaged_slow_models()
    trained = train_head(
        [*few, *split.training],
        slow.encoder,
        KnownVectors(slow.vectors),
        present.asks,
        own_dressings(few),
        year=2026,
        weights={},
        calibration_sources={"kept_apart_traps"},
        start=present,
    )
    student = unpack_head(trained.content, slow)
    before, after = (
        evaluate_head(present, split.held_out, 2026),
        evaluate_head(student, split.held_out, 2026),
    )
    assert before.agreement < 0.5
    assert after.agreement > 0.9
    assert student.guess([{"role": "user", "content": "hello"}], 2026).label == "MODERATE"
    assert why_not_install(after, before, 0.03) is not None
