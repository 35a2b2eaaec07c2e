"""The folder of sessions, as readers see it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.config import SessionBodies
from ai_router.observability.log_lines import is_slow
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.session_reader import SessionFiles, SessionFilter
from ai_router.types import Status
from tests.chat_requests import chat_request
from tests.outcomes import outcome

BEGIN = datetime(2026, 11, 21, tzinfo=UTC)
ALL = SessionFilter()


def save(folder: Path, number: int, text: str = "hello", client: str = "", **changes: Any) -> None:
    when = BEGIN + timedelta(seconds=number)
    request = chat_request(text, session_id=f"{number:08x}", timestamp=when, client=client)
    SessionLogger(folder).save(outcome(request=request, **changes))


def ids(files: SessionFiles, session_filter: SessionFilter = ALL, limit: int = 100) -> list[int]:
    return [int(summary["session_id"], 16) for summary in files.page(session_filter, limit).sessions]


def test_the_newest_come_first_page_after_page(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path, number)
    files = SessionFiles(tmp_path)
    first = files.page(ALL, 2)
    second = files.page(SessionFilter(before=first.next), 2)
    third = files.page(SessionFilter(before=second.next), 2)
    pages = [[int(s["session_id"], 16) for s in page.sessions] for page in (first, second, third)]
    assert pages == [[4, 3], [2, 1], [0]]
    assert third.next is None


@pytest.mark.parametrize(
    ("session_filter", "found"),
    [
        (SessionFilter(route="xai"), [2]),
        (SessionFilter(status="error"), [1]),
        (SessionFilter(client="key-1"), [0]),
        (SessionFilter(slow=is_slow), [2]),
        (SessionFilter(slow=lambda _, ms: ms >= 100), [2, 1, 0]),
        (SessionFilter(text="STRASSE"), [0]),
        (SessionFilter(text='say "hi"\n'), [1]),
        (SessionFilter(text="an answer about bees"), [2]),
        (SessionFilter(text="content"), []),
        (SessionFilter(route="xai", status="error"), []),
    ],
)
def test_filters(tmp_path: Path, session_filter: SessionFilter, found: list[int]) -> None:
    save(tmp_path, 0, "eine lange Straße", client="key-1")
    save(tmp_path, 1, 'say "hi"\nplease', status=Status.ERROR, error="no")
    save(tmp_path, 2, route="xai", timings={"total_ms": 40_000.0}, response={"content": "An answer about bees."})
    assert ids(SessionFiles(tmp_path), session_filter) == found


def test_what_is_written_and_deleted_meanwhile_is_seen(tmp_path: Path) -> None:
    files = SessionFiles(tmp_path)
    assert ids(files) == []
    save(tmp_path, 1)
    assert ids(files) == [1]
    save(tmp_path, 2)
    next(tmp_path.glob("*-00000001.json")).unlink()
    assert ids(files) == [2]


def test_other_files_and_broken_ones_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / ".20261121T000009.000000Z-00000009.json.tmp").write_text("{")
    (tmp_path / "20261121T000008.000000Z-00000008.json").write_text("{")
    (tmp_path / "20261121T000007.000000Z-00000007.json").write_text("[]")
    assert ids(SessionFiles(tmp_path)) == [1]


def test_one_session_is_the_file_byte_for_byte_and_somebody_else_s_is_none(tmp_path: Path) -> None:
    save(tmp_path, 1, client="key-1")
    files = SessionFiles(tmp_path)
    document = files.get("00000001", None)
    assert document == next(tmp_path.glob("*-00000001.json")).read_bytes()
    assert files.get("00000001", "key-1") == document
    assert files.get("00000001", "key-2") is None
    assert files.get("00000002", None) is None


def test_a_search_that_takes_too_long_says_how_far_it_came(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path, number)
    ticks: Iterator[float] = iter(range(100))
    page = SessionFiles(tmp_path, clock=lambda: float(next(ticks))).page(SessionFilter(text="nowhere"), 5)
    assert not page.complete
    assert page.next is not None
    assert page.next.endswith("-00000000"), "whose session it stopped at is nobody's business"
    rest = SessionFiles(tmp_path).page(SessionFilter(text="hello", before=page.next), 100)
    assert len(rest.sessions) < 10
    assert rest.complete


def test_a_list_shows_how_it_began_or_nothing_where_bodies_are_off(tmp_path: Path) -> None:
    save(tmp_path, 1, "what   is\n this? " + "x" * 500)
    files = SessionFiles(tmp_path)
    shown = files.page(ALL, 1).sessions[0]["opening"]
    assert shown.startswith("what is this? xxx")
    assert len(shown) == 120
    request = chat_request("secret", session_id="0" * 8, timestamp=BEGIN + timedelta(days=1))
    SessionLogger(tmp_path, bodies=SessionBodies.OFF).save(outcome(request=request))
    assert files.page(ALL, 1).sessions[0]["opening"] is None


def test_a_session_without_bodies_is_a_session_all_the_same(tmp_path: Path) -> None:
    request = chat_request("secret", timestamp=BEGIN)
    SessionLogger(tmp_path, bodies=SessionBodies.OFF).save(outcome(request=request))
    document = orjson.loads(next(tmp_path.glob("*.json")).read_bytes())
    assert (document["bodies"], document["client_messages"]) == ("off", None)
    assert b"secret" not in orjson.dumps(document)
