"""Verdicts in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from ai_router.storage import feedback as feedback_module
from ai_router.storage.feedback import FeedbackStore
from ai_router.storage.tables import feedback as feedback_table


@pytest.fixture
def store(database: str) -> Iterator[FeedbackStore]:
    store = FeedbackStore(database)
    yield store
    store.close()


def verdict(session: str = "s1", label: str | None = "COMPLEX", **changes: Any) -> dict[str, Any]:
    row = {"client": "", "organization": "", "request_id": "r", "session_id": session, "verdict": "should_be"}
    messages = [{"role": "user", "content": "prove it \U0001f600"}]
    return {**row, "decided": "MODERATE", "label": label, "messages": messages, **changes}


def test_of_one_request_the_newest_verdict_counts(store: FeedbackStore) -> None:
    store.add(verdict("s1", "COMPLEX"), 30)
    store.add(verdict("s2", None, verdict="bad"), 30)
    store.add(verdict("s1", "ENRICH"), 30)
    example, other = store.all()
    assert (example["session_id"], example["label"]) == ("s1", "ENRICH")
    assert (other["session_id"], other["label"], other["verdict"]) == ("s2", None, "bad")
    with store.begin() as connection:
        assert connection.execute(select(func.count()).select_from(feedback_table)).scalar_one() == 3
    assert example["messages"] == [{"role": "user", "content": "prove it \U0001f600"}]


def test_so_many_are_kept_and_the_newest_of_them(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_module, "MAX_ROWS", 3)
    for number in range(6):
        store.add(verdict(f"s{number}"), 30)
    assert [example["session_id"] for example in store.all()] == ["s3", "s4", "s5"]


def test_old_verdicts_are_deleted_with_the_next_one(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_module.time, "time", lambda: 1_700_000_000.0)
    store.add(verdict("old"), 30)
    monkeypatch.undo()
    store.add(verdict("new"), 30)
    assert [example["session_id"] for example in store.all()] == ["new"]
