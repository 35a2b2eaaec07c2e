"""Sessions as lessons: who teaches, what is learned from and examined on, and when a student is installed."""

from __future__ import annotations

from pathlib import Path

from ai_router.learning.distillation import FEWEST_EXAMINED, Examination, install, lessons_from, why_not_install
from ai_router.types import DecidedBy
from tests.stored_sessions import session


def test_only_the_classifier_is_a_teacher_and_its_newest_word_counts() -> None:
    lessons = lessons_from(
        [
            session("a", label="COMPLEX"),
            session("a", label="MODERATE"),
            session("b", decided_by=DecidedBy.FAST),
            session("c", decided_by=DecidedBy.DEFAULT),
        ]
    )
    both = [*lessons.learned, *lessons.examined]
    assert [(example.messages[0]["content"], example.label) for example in both] == [("a", "MODERATE")]


def test_a_conversation_is_learned_from_or_examined_on_never_both() -> None:
    turns = [
        session(messages=[{"role": "user", "content": f"opening {n}"}, {"role": "user", "content": last}])
        for n in range(60)
        for last in ("x", "y")
    ]
    lessons = lessons_from(turns)
    learned, examined = ({e.messages[0]["content"] for e in part} for part in (lessons.learned, lessons.examined))
    assert learned
    assert examined
    assert not learned & examined


def test_a_worse_student_is_not_installed() -> None:
    present = Examination(100, 0.90, 0.8, 0.98)
    assert why_not_install(present, Examination(100, 0.89, 0.9, 0.99), 0.03) is not None
    assert why_not_install(present, Examination(100, 0.95, 0.9, 0.95), 0.03) is not None
    assert why_not_install(present, Examination(100, 0.90, 0.8, 0.98), 0.03) is None
    assert why_not_install(present, Examination(FEWEST_EXAMINED - 1, 1.0, 1.0, 1.0), 0.03) is not None


def test_installing_keeps_the_one_before(tmp_path: Path) -> None:
    install(b"first", tmp_path / "data")
    install(b"second", tmp_path / "data")
    assert (tmp_path / "data" / "head.npz").read_bytes() == b"second"
    assert (tmp_path / "data" / "head.previous.npz").read_bytes() == b"first"
