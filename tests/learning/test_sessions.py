"""Sessions on disk, as lessons and as something to decide again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.learning.distillation import (
    FEWEST_EXAMINED,
    Examination,
    install,
    lessons_from,
    why_not_install,
)
from ai_router.learning.replay import policy_named, replay
from ai_router.learning.sessions import StoredSession, read_sessions
from ai_router.routing.head.model import Guess
from ai_router.types import DecidedBy, Label


def session(text: str = "hi", *, label: str = "MODERATE", route: str = "primary", **changes: Any) -> StoredSession:
    values: dict[str, Any] = {
        "session_id": "s",
        "year": 2026,
        "messages": [{"role": "user", "content": text}],
        "label": Label(label),
        "decided_by": DecidedBy.CLASSIFIER,
        "route": route,
        "stream": True,
        "status": "ok",
        "timings": {"classification_ms": 1000.0, "upstream_ms": 50.0, "ttft_ms": 1005.0, "total_ms": 2000.0},
        "cost_usd": None,
    }
    return StoredSession(**{**values, **changes})


def document(**changes: Any) -> dict[str, Any]:
    return {
        "session_id": "s",
        "timestamp": "2026-11-21T20:00:00+00:00",
        "client_messages": [{"role": "user", "content": "hi"}],
        "decision": {"label": "MODERATE", "decided_by": "classifier"},
        "route": "primary",
        "stream": False,
        "status": "ok",
        "timings": {"total_ms": 5.0},
        "cost_usd": None,
        **changes,
    }


def stored(folder: Path, name: str, content: bytes) -> None:
    (folder / f"{name}.json").write_bytes(content)


def test_sessions_are_read_and_broken_files_are_skipped_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path, "1", orjson.dumps(document()))
    stored(tmp_path, "2", b"{ torn")
    stored(tmp_path, "3", orjson.dumps(document(client_messages="no")))
    stored(tmp_path, "4", orjson.dumps(document(decision=None)))
    stored(tmp_path, "5", orjson.dumps(document(decision={"label": "META", "decided_by": "meta"})))
    (found,) = read_sessions(tmp_path)
    assert (found.label, found.year, found.opening) == ("MODERATE", 2026, "hi")
    assert "2.json is no session" in caplog.text
    assert "3.json is no session" in caplog.text


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


# Replay


def guessing(label: str, confidence: float = 0.99) -> Guess:
    return Guess(Label(label), {}, confidence, confidence > 0.9, "")


def test_a_sure_head_spares_the_classifier_s_second() -> None:
    result = replay([session()] * 4, policy_named("cascade", lambda _: guessing("MODERATE")))
    assert (result.asked_before, result.asked, result.agreed) == (4, 0, 1.0)
    assert (result.before_ms, result.after_ms) == (1005.0, 50.0)


def test_an_unsure_head_leaves_the_recorded_decision_and_its_time() -> None:
    result = replay([session()], policy_named("cascade", lambda _: guessing("COMPLEX", 0.5)))
    assert (result.asked, result.agreed, result.after_ms) == (1, 1.0, 1000.0)


def test_a_route_that_changes_takes_and_costs_what_that_route_usually_does() -> None:
    dear = session("p", label="COMPLEX", route="xai", cost_usd=0.25, timings={"upstream_ms": 400.0, "ttft_ms": 1400.0})
    result = replay([dear, session()], policy_named("primary", lambda _: guessing("COMPLEX")))
    assert result.moved == {("xai", "primary"): 1, ("primary", "primary"): 1}
    assert (result.before_usd, result.after_usd) == (0.25, 0.0)
    assert result.after_ms == 50.0


def test_another_confidence_can_be_tried() -> None:
    policy = policy_named("cascade:0.5", lambda _: guessing("COMPLEX", 0.6))
    assert policy(session()).label == "COMPLEX"


@pytest.mark.parametrize("name", ["nonsense", "cascade:much", "head:0.5", ""])
def test_an_unknown_policy_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"policy|confidence"):
        policy_named(name, lambda _: guessing("MODERATE"))
