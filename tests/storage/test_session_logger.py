"""Session files: whole, private, bounded, and off the request's path."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.config import SessionBodies
from ai_router.storage.session_logger import CLEANUP_INTERVAL, SessionLogger, file_name, session_document
from ai_router.types import ChatRequest, DecidedBy, Decision, Label, Outcome, Route, SpeculationResult, Status


def outcome(session_id: str = "dba46d38", **changes: Any) -> Outcome:
    messages = [{"role": "user", "content": "h\u00e9llo"}]
    request = ChatRequest(
        request_id="req_1",
        session_id=session_id,
        timestamp=datetime(2026, 11, 21, 19, 56, 22, 123456, tzinfo=UTC),
        arrived_at=time.monotonic(),
        model="auto",
        stream=False,
        messages=messages,
        messages_json=SessionLogger.set_query(messages),
        params={},
        date_context="",
        total_chars=5,
    )
    values: dict[str, Any] = {
        "request": request,
        "status": Status.OK,
        "route": "primary",
        "decision": Decision(Label.MODERATE, Route.PRIMARY, DecidedBy.CLASSIFIER, "classifier: MODERATE", 0.9),
        "reason": "classifier: MODERATE",
        "speculation": SpeculationResult.HIT,
        "steps": (),
        "attempts": (),
        "response": {"content": "hi"},
        "usage": None,
        "timings": {"total_ms": 12.34},
        "error": None,
    }
    return Outcome(**{**values, **changes})


def fill(folder: Path, count: int) -> list[str]:
    """``count`` empty sessions of the last ``count`` minutes; their names, oldest first."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    names = [file_name(begin + timedelta(minutes=index), f"{index:08x}") for index in range(count)]
    for name in names:
        (folder / name).touch()
    return names


def test_a_session_file_is_whole_private_and_named_by_time(tmp_path: Path) -> None:
    SessionLogger(tmp_path).save(outcome())
    (path,) = tmp_path.iterdir()
    assert path.name == "20261121T195622.123456Z-dba46d38.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    session = orjson.loads(path.read_bytes())
    assert session["client_messages"] == [{"role": "user", "content": "h\u00e9llo"}]
    contract = (
        "session_id timestamp request_id client_messages route decision steps response usage cost_usd timings status"
    )
    assert set(contract.split()) <= set(session)


def test_the_messages_are_the_bytes_of_their_arrival_not_serialised_again() -> None:
    raw = b'[ {"role":"user",   "content":"as it came"} ]'
    request = outcome().request
    changed = ChatRequest(**{**{name: getattr(request, name) for name in request.__slots__}, "messages_json": raw})
    assert raw in orjson.dumps(session_document(outcome(request=changed)))


def test_the_oldest_beyond_the_limit_go_every_hundred_saves(tmp_path: Path) -> None:
    names = fill(tmp_path, 150)
    sessions = SessionLogger(tmp_path, max_files=100)
    for number in range(CLEANUP_INTERVAL - 1):
        sessions.save(outcome(f"n{number}"))
    assert len(list(tmp_path.iterdir())) == 150 + CLEANUP_INTERVAL - 1
    sessions.save(outcome("last"))
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 100
    assert not left & set(names), "what is left must be the newest"


def test_cleanup_also_comes_after_a_while_without_saves(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    sessions = SessionLogger(tmp_path, max_files=5, period_s=0.05)
    sessions.start()
    end = time.monotonic() + 10
    while len(list(tmp_path.iterdir())) > 5 and time.monotonic() < end:
        time.sleep(0.01)
    sessions.close()
    assert len(list(tmp_path.iterdir())) == 5


def test_50_000_files_are_brought_down_to_5_000(tmp_path: Path) -> None:
    names = fill(tmp_path, 50_000)
    SessionLogger(tmp_path)._cleanup()
    assert sorted(path.name for path in tmp_path.iterdir()) == names[-5_000:]


def test_taking_an_outcome_costs_the_same_with_50_000_files_and_with_none(tmp_path: Path) -> None:
    def cost_of_taking(folder: Path) -> float:
        sessions = SessionLogger(folder)
        taken = [outcome(f"s{number}") for number in range(300)]
        started = time.perf_counter()
        for one in taken:
            sessions.record(one)
        return time.perf_counter() - started

    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    fill(full, 50_000)
    costs = [(cost_of_taking(empty), cost_of_taking(full)) for _ in range(5)]
    assert min(full for _, full in costs) < 5 * min(empty for empty, _ in costs)


def test_files_that_are_not_ours_stay(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    (tmp_path / "notes.txt").touch()
    SessionLogger(tmp_path, max_files=1)._cleanup()
    assert (tmp_path / "notes.txt").exists()


def test_what_an_earlier_process_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".20260101T000000.000000Z-x.json.tmp").write_text("{")
    sessions = SessionLogger(tmp_path)
    sessions.save(outcome())
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_what_another_process_is_just_writing_stays(tmp_path: Path) -> None:
    half = tmp_path / f".20260101T000000.000000Z-x.json.{os.getppid()}.tmp"
    half.write_text("{")
    SessionLogger(tmp_path).save(outcome())
    assert half.exists()
    os.utime(half, (0, 0))
    SessionLogger(tmp_path).save(outcome())
    assert not half.exists()


def test_a_disk_that_refuses_loses_the_session_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    sessions = SessionLogger(tmp_path)
    monkeypatch.setattr("os.open", full)
    with caplog.at_level(logging.WARNING):
        sessions.save(outcome())
        sessions.save(outcome())
    assert (sessions.lost, sessions.last_error) == (2, "No space left on device")
    assert len(caplog.records) == 1
    monkeypatch.undo()
    sessions.save(outcome())
    assert sessions.last_error is None


def test_an_answer_that_cannot_be_written_costs_its_answer_and_no_other_session(tmp_path: Path) -> None:
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    sessions = SessionLogger(tmp_path)
    for number in range(5):
        sessions.record(outcome(f"d{number}", response={"content": deep if number == 2 else "fine"}))
    sessions.start()
    sessions.close()
    saved = [orjson.loads(path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    assert [session["response"] for session in saved].count(None) == 1
    assert len(saved) == 5
    assert sessions.lost == 0


def test_close_saves_what_is_queued(tmp_path: Path) -> None:
    sessions = SessionLogger(tmp_path)
    for number in range(50):
        sessions.record(outcome(f"q{number}"))
    sessions.start()
    sessions.close()
    assert len(list(tmp_path.iterdir())) == 50


def test_a_session_that_cannot_be_written_takes_no_other_with_it(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(2_000):
        deep = {"a": deep}
    sessions = SessionLogger(tmp_path, bodies=SessionBodies.REDACTED)
    sessions.start()
    sessions.record(outcome())
    sessions.record(outcome(response={"content": deep}))
    sessions.record(outcome())
    sessions.close()
    assert sessions.lost == 1
    assert len(list(tmp_path.glob("*.json"))) == 1, "the same session twice, and the one between not at all"


def test_a_directory_that_somebody_has_removed_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    sessions = SessionLogger(folder)
    sessions.save(outcome())
    shutil.rmtree(folder)
    sessions.save(outcome())
    assert len(list(folder.glob("*.json"))) == 1
    assert (sessions.lost, sessions.last_error) == (0, None)
