"""Rows in a file, until the database takes them."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import pytest

from ai_router.errors import StoreUnavailable
from ai_router.storage.usage_rows import Rows, SpillFile


def rows(number: int) -> Rows:
    return Rows(
        {"id": f"r{number}", "confidence": 0.9, "local_only": False, "charged_usd": 0.5}, [{"id": f"r{number}-1"}]
    )


def names(count: int) -> set[str]:
    return {f"r{number}" for number in range(count)}


@pytest.mark.parametrize("line", [b"123", b"[1,2]", b'[{"no": "id"},[]]', b'[{"id": "x"},[3]]', b"\xff\xfe"])
def test_a_line_from_another_hand_is_counted_and_passed_over(tmp_path: Path, line: bytes) -> None:
    spill_file = SpillFile(tmp_path / "unsaved.jsonl")
    (tmp_path / "unsaved.jsonl").write_bytes(line)
    spill_file.put([rows(0)])
    taken: list[Rows] = []
    assert spill_file.take(taken.extend) == 1
    assert taken == [rows(0)]


def test_a_row_of_an_older_version_gets_what_that_did_not_know(tmp_path: Path) -> None:
    (tmp_path / "unsaved.jsonl").write_bytes(b'[{"id": "r0"},[]]\n')
    taken: list[Rows] = []
    SpillFile(tmp_path / "unsaved.jsonl").take(taken.extend)
    assert taken == [Rows({"id": "r0", "confidence": None, "local_only": False, "charged_usd": None}, [])]


def test_a_line_that_a_crash_has_cut_off_costs_that_line_only(tmp_path: Path) -> None:
    spill_file = SpillFile(tmp_path / "unsaved.jsonl")
    spill_file.put([rows(0), rows(1)])
    with (tmp_path / "unsaved.jsonl").open("ab") as file:
        file.write(b'[{"id": "r2"')
    spill_file.put([rows(3)])
    taken: list[Rows] = []
    assert spill_file.take(taken.extend) == 1
    assert taken == [rows(0), rows(1), rows(3)]
    spill_file.take(taken.extend)
    assert len(taken) == 3


def test_what_cannot_be_saved_stays_in_the_file(tmp_path: Path) -> None:
    spill_file = SpillFile(tmp_path / "unsaved.jsonl")
    spill_file.put([rows(0)])

    def fails(_: Sequence[Rows]) -> None:
        raise StoreUnavailable("no")

    with pytest.raises(StoreUnavailable):
        spill_file.take(fails)
    taken: list[Rows] = []
    spill_file.take(taken.extend)
    assert taken == [rows(0)]


def _put_many(path: Path, begin: int) -> None:
    for number in range(begin, begin + 50):
        SpillFile(path).put([rows(number)])


def test_processes_that_put_and_take_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "unsaved.jsonl"
    spawn = get_context("spawn")
    processes = [spawn.Process(target=_put_many, args=(path, begin)) for begin in (0, 50)]
    for process in processes:
        process.start()
    taken: list[Rows] = []
    while any(process.is_alive() for process in processes):
        SpillFile(path).take(taken.extend)
    SpillFile(path).take(taken.extend)
    assert {row.request["id"] for row in taken} == names(100)
