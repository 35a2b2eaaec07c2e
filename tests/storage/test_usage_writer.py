"""Rows into a database that works, fails, hangs, or comes back."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ai_router.errors import StoreUnavailable
from ai_router.storage.usage import UsageStore
from ai_router.storage.usage_rows import RowRefused, Rows, SpillFile
from ai_router.storage.usage_writer import UsageWriter
from tests.storage.test_usage import rows as real_rows
from tests.storage.test_usage_rows import names, rows


class FakeStore:
    """A database that fails or hangs on demand. Keeps rows by their ids, as the real one does."""

    def __init__(self) -> None:
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.egress_rows: dict[str, Mapping[str, Any]] = {}
        self.broken = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.asked = threading.Event()
        self.forgotten: list[str] = []

    def insert(self, rows: Sequence[Mapping[str, Any]], egress_rows: Sequence[Mapping[str, Any]]) -> None:
        self.asked.set()
        self.may_go_on.wait(30)
        if self.broken:
            raise StoreUnavailable("locked")
        if any(row["id"] == "bad" for row in rows):
            raise RowRefused("beyond its type")
        if any(row["id"] == "odd" for row in rows):
            raise RuntimeError("nobody thought of this")
        self.rows.update({row["id"]: row for row in rows})
        self.egress_rows.update({row["id"]: row for row in egress_rows})

    def check(self) -> None:
        pass

    def record_run(self, run: str, started: float, now: float) -> None:
        pass

    def runs_since(self, since: float) -> Sequence[tuple[float, float]]:
        return [(1.0, 2.0)]

    def forget_before(self, day: str) -> int:
        self.forgotten.append(day)
        return 0

    def close(self) -> None:
        pass


def writer(store: FakeStore, folder: Path, **changes: Any) -> UsageWriter[FakeStore]:
    made = UsageWriter(
        changes.pop("open_store", lambda: store), SpillFile(folder / "unsaved.jsonl"), keep_days=30, **changes
    )
    made.start()
    return made


def test_what_is_put_is_there_when_it_has_settled(tmp_path: Path) -> None:
    store = FakeStore()
    usage = writer(store, tmp_path)
    usage.put(rows(0))
    usage.flush()
    assert (set(store.rows), set(store.egress_rows)) == ({"r0"}, {"r0-1"})
    assert usage.store is store
    assert usage.recent_runs == [(1.0, 2.0)]
    assert len(store.forgotten) == 1
    usage.close()


def test_a_clean_stop_writes_all_that_waits(tmp_path: Path) -> None:
    store = FakeStore()
    usage = writer(store, tmp_path)
    for number in range(1_234):
        usage.put(rows(number))
    usage.close()
    assert set(store.rows) == names(1_234)
    assert not (tmp_path / "unsaved.jsonl").exists()


def test_a_database_that_fails_has_its_rows_when_it_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = FakeStore()
    store.broken = True
    usage = writer(store, tmp_path, retry_s=0.001)
    usage.put(rows(0))
    usage.flush()
    assert usage.last_error == "locked"
    assert usage.waiting == 1
    store.broken = False
    usage.put(rows(1))
    usage.close()
    assert set(store.rows) == names(2)
    assert usage.last_error is None
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["Usage not saved yet", "Usage"]


def test_while_a_database_hangs_whoever_puts_rows_does_not_wait_and_loses_none(tmp_path: Path) -> None:
    store = FakeStore()
    store.may_go_on.clear()
    usage = writer(store, tmp_path)
    usage.put(rows(0))
    usage._batches._gather_s = 0.0
    assert store.asked.wait(10)
    for number in range(1, 100):
        usage.put(rows(number))
    assert usage.waiting == 100
    store.may_go_on.set()
    usage.close()
    assert set(store.rows) == names(100)


def test_a_stop_with_a_dead_database_puts_the_rows_aside_and_the_next_start_writes_them(tmp_path: Path) -> None:
    store = FakeStore()
    store.broken = True
    first = writer(store, tmp_path)
    for number in range(700):
        first.put(rows(number))
    first.close()
    assert (tmp_path / "unsaved.jsonl").stat().st_mode & 0o777 == 0o600
    store.broken = False
    second = writer(store, tmp_path)
    second.put(rows(700))
    second.close()
    assert set(store.rows) == names(701)
    assert set(store.egress_rows) == {f"{name}-1" for name in names(701)}
    assert not (tmp_path / "unsaved.jsonl").exists()


def test_a_database_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    store, tries = FakeStore(), [StoreUnavailable("no")]

    def open_store() -> FakeStore:
        if tries:
            raise tries.pop()
        return store

    usage = writer(store, tmp_path, open_store=open_store, retry_s=3600)
    usage.put(rows(0))
    usage.flush()
    with pytest.raises(StoreUnavailable) as caught:
        _ = usage.store
    assert caught.value.detail == "no"
    usage._retry_at = 0.0
    usage.put(rows(1))
    usage.flush()
    assert usage.store is store
    usage.close()
    assert set(store.rows) == names(2)


def test_a_look_up_right_after_the_start_waits_until_the_database_is_open(tmp_path: Path) -> None:
    store, opening, may_open = FakeStore(), threading.Event(), threading.Event()

    def open_slowly() -> FakeStore:
        opening.set()
        may_open.wait(30)
        return store

    usage = writer(store, tmp_path, open_store=open_slowly, retry_s=3600)
    with ThreadPoolExecutor() as look_ups:
        look_up = look_ups.submit(usage.wait_for_store, 30)
        assert opening.wait(10)
        assert not look_up.done()
        may_open.set()
        assert look_up.result(10) is store
    usage.close()


def test_a_look_up_learns_at_once_that_the_database_cannot_be_opened(tmp_path: Path) -> None:
    def fails() -> FakeStore:
        raise StoreUnavailable("no")

    usage = writer(FakeStore(), tmp_path, open_store=fails, retry_s=3600)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        usage.wait_for_store(30)
    assert caught.value.detail == "no"
    assert time.monotonic() - began < 10
    usage.close()


def test_a_look_up_waits_no_longer_than_its_patience_for_a_database_to_open(tmp_path: Path) -> None:
    may_open = threading.Event()

    def open_slowly() -> FakeStore:
        may_open.wait(30)
        return FakeStore()

    usage = writer(FakeStore(), tmp_path, open_store=open_slowly, retry_s=3600)
    with pytest.raises(StoreUnavailable) as caught:
        usage.wait_for_store(0.01)
    assert caught.value.detail == "it is still being opened"
    may_open.set()
    usage.close()


def test_more_rows_than_are_kept_go_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_router.storage.usage_writer.PENDING_LIMIT", 10)
    store = FakeStore()
    store.broken = True
    usage = writer(store, tmp_path)
    for number in range(50):
        usage.put(rows(number))
    usage.flush()
    assert usage.waiting <= 10
    store.broken = False
    usage._retry_at = 0.0
    usage.put(rows(50))
    usage.close()
    assert set(store.rows) == names(51)


def test_rows_are_lost_only_if_the_disk_fails_as_well_and_that_is_counted(tmp_path: Path) -> None:
    store, lost = FakeStore(), list[int]()
    store.broken = True
    (tmp_path / "unsaved.jsonl").mkdir()
    usage = writer(store, tmp_path, on_lost=lost.append)
    usage.put(rows(0))
    usage.put(rows(1))
    usage.close()
    assert sum(lost) == 2


def test_a_row_that_the_database_refuses_costs_itself_only_and_is_counted(tmp_path: Path) -> None:
    store, lost = FakeStore(), list[int]()
    usage = writer(store, tmp_path, on_lost=lost.append)
    for number in range(40):
        usage.put(rows(number) if number != 17 else Rows({"id": "bad"}))
    usage.close()
    assert set(store.rows) == names(40) - {"r17"}
    assert lost == [1]


def test_a_problem_that_nobody_thought_of_is_one_of_the_database_and_rows_stay_within_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai_router.storage.usage_writer.PENDING_LIMIT", 10)
    usage = writer(FakeStore(), tmp_path, retry_s=0.0)
    usage.put(Rows({"id": "odd"}))
    for number in range(50):
        usage.put(rows(number))
    usage.flush()
    assert usage.last_error == "RuntimeError"
    assert usage.waiting <= 10
    usage.close()


def test_a_stop_does_not_wait_for_a_database_that_hangs_over_rows_put_aside(tmp_path: Path) -> None:
    store = FakeStore()
    SpillFile(tmp_path / "unsaved.jsonl").put([rows(1)])
    store.may_go_on.clear()
    usage = writer(store, tmp_path)
    usage.put(rows(2))
    usage._batches._gather_s = 0.0
    assert store.asked.wait(10)
    usage.put(rows(3))
    usage._spill([rows(4)])
    taken: list[Rows] = []
    store.may_go_on.set()
    usage.close()
    SpillFile(tmp_path / "unsaved.jsonl").take(taken.extend)
    assert set(store.rows) | {row.request["id"] for row in taken} == {"r1", "r2", "r3", "r4"}


def real_writer(folder: Path) -> UsageWriter[UsageStore]:
    url = f"sqlite:///{folder / 'usage.db'}"
    made = UsageWriter(lambda: UsageStore(url), SpillFile(folder / "unsaved.jsonl"), keep_days=9999, retry_s=3600)
    made.start()
    return made


def kept(usage: UsageWriter[UsageStore]) -> int:
    """How many requests a look-up finds."""
    usage.flush()
    store = usage.wait_for_store(30)
    return int(store.totals("2020-01-01", "2030-01-01", None, by=())[0]["requests"])


@pytest.mark.parametrize("content", [b"no database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_broken_file_is_set_aside_and_told_once_and_no_row_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "usage.db").write_bytes(content)
    usage = real_writer(tmp_path)
    for number in range(3):
        usage.put(real_rows(f"{number}"))
    assert kept(usage) == 3
    usage.put(real_rows("3"))
    assert kept(usage) == 4
    assert (usage.last_error, usage.lost, usage.reopened) == (None, 0, 1)
    usage.close()
    [aside] = tmp_path.glob("usage.db.broken-*")
    assert aside.read_bytes() == content
    [told] = caplog.records
    assert told.getMessage().endswith(f"it is kept as {aside.name}")
    assert told.exc_info is None


def test_a_file_that_breaks_in_use_is_set_aside_as_well(tmp_path: Path) -> None:
    usage = real_writer(tmp_path)
    usage.put(real_rows("0"))
    assert kept(usage) == 1
    usage.store.close()  # what SQLite has in memory would cover the damage
    (tmp_path / "usage.db").write_bytes(b"no database" * 500)
    for end in ("-wal", "-shm"):
        (tmp_path / f"usage.db{end}").unlink(missing_ok=True)
    usage.put(real_rows("1"))
    assert kept(usage) == 1
    assert usage.reopened == 1
    usage.close()


@pytest.mark.parametrize("ends", [("",), ("", "-wal", "-shm")])
def test_a_file_deleted_in_use_is_made_again_and_rows_go_there(tmp_path: Path, ends: tuple[str, ...]) -> None:
    usage = real_writer(tmp_path)
    usage.put(real_rows("0"))
    assert kept(usage) == 1
    for end in ends:
        (tmp_path / f"usage.db{end}").unlink()
    usage.put(real_rows("1"))
    assert kept(usage) == 1
    assert (usage.last_error, usage.lost, usage.reopened) == (None, 0, 1)
    usage.close()
    assert (tmp_path / "usage.db").stat().st_size > 0


def test_a_look_up_after_the_folder_was_deleted_answers_from_a_new_database(tmp_path: Path) -> None:
    usage = real_writer(tmp_path / "data")
    usage.put(real_rows("0"))
    assert kept(usage) == 1
    shutil.rmtree(tmp_path / "data")
    assert kept(usage) == 0
    usage.close()


def test_a_broken_file_that_cannot_be_renamed_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usage.db").write_bytes(b"no database at all" * 500)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        usage = real_writer(tmp_path)
        usage.put(real_rows("0"))
        usage.flush()
        assert usage.waiting == 1
        assert str(usage.last_error).endswith("cannot be renamed: Permission denied")
    usage._retry_at = 0.0
    usage.put(real_rows("1"))
    assert kept(usage) == 2
    usage.close()
