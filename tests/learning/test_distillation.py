"""Sessions as split: who teaches, what is learned from and examined on, and when a student is installed."""

from __future__ import annotations

from pathlib import Path

from ai_router.learning.distillation import (
    MIN_HELD_OUT,
    HeldOutResult,
    examples_from_sessions,
    install_head,
    why_not_install,
)
from ai_router.types import DecidedBy
from tests.stored_sessions import session


def test_only_the_classifier_is_a_teacher_and_its_newest_word_counts() -> None:
    split = examples_from_sessions(
        [
            session("a", label="COMPLEX"),
            session("a", label="MODERATE"),
            session("b", decided_by=DecidedBy.FAST),
            session("c", decided_by=DecidedBy.DEFAULT),
        ]
    )
    both = [*split.training, *split.held_out]
    assert [(example.messages[0]["content"], example.label) for example in both] == [("a", "MODERATE")]


def test_a_conversation_is_learned_from_or_examined_on_never_both() -> None:
    turns = [
        session(messages=[{"role": "user", "content": f"opening {n}"}, {"role": "user", "content": last}])
        for n in range(60)
        for last in ("x", "y")
    ]
    split = examples_from_sessions(turns)
    learned, examined = ({e.messages[0]["content"] for e in part} for part in (split.training, split.held_out))
    assert learned
    assert examined
    assert not learned & examined


def test_a_worse_student_is_not_installed() -> None:
    present = HeldOutResult(100, 0.90, 0.8, 0.98)
    assert why_not_install(present, HeldOutResult(100, 0.89, 0.9, 0.99), 0.03) is not None
    assert why_not_install(present, HeldOutResult(100, 0.95, 0.9, 0.95), 0.03) is not None
    assert why_not_install(present, HeldOutResult(100, 0.90, 0.8, 0.98), 0.03) is None
    assert why_not_install(present, HeldOutResult(MIN_HELD_OUT - 1, 1.0, 1.0, 1.0), 0.03) is not None


def test_installing_keeps_the_one_before(tmp_path: Path) -> None:
    install_head(b"first", tmp_path / "data")
    install_head(b"second", tmp_path / "data")
    assert (tmp_path / "data" / "head.npz").read_bytes() == b"second"
    assert (tmp_path / "data" / "head.previous.npz").read_bytes() == b"first"
