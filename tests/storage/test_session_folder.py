"""Deleting the oldest files of a folder without reading it again and again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ai_router.storage.session_folder import SessionFolder


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each time that a folder is read."""
    seen: list[str] = []
    scandir = os.scandir

    def counting(path: str) -> os._ScandirIterator[str]:  # type: ignore[name-defined]
        seen.append("read")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    return seen


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.json").touch()


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def test_what_this_process_writes_is_known_without_reading(tmp_path: Path, reads: list[str]) -> None:
    folder = SessionFolder(tmp_path, 3, 60, Clock())
    write(tmp_path, "1", "2")
    folder.delete_oldest()
    for number in range(3, 9):
        write(tmp_path, str(number))
        folder.added(f"{number}.json")
        folder.delete_oldest()
    assert len(reads) == 2, "at the beginning, and once more to see whether others write there"
    assert names(tmp_path) == ["6", "7", "8"]


def test_the_oldest_go_in_whatever_order_they_were_written(tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path, 2, 60, Clock())
    folder.delete_oldest()
    for name in ("5", "1", "9", "3"):
        write(tmp_path, name)
        folder.added(f"{name}.json")
    folder.delete_oldest()
    assert names(tmp_path) == ["5", "9"]


def test_after_a_while_it_is_read_anew_since_somebody_may_have_removed_files(tmp_path: Path, reads: list[str]) -> None:
    clock = Clock()
    folder = SessionFolder(tmp_path, 3, 60, clock)
    write(tmp_path, "1", "2", "3")
    folder.delete_oldest()
    folder.delete_oldest()
    (tmp_path / "2.json").unlink()
    write(tmp_path, "4")
    folder.added("4.json")
    reads.clear()
    clock.now = 61
    folder.delete_oldest()
    assert reads == ["read"]
    assert names(tmp_path) == ["1", "3", "4"]


def test_while_others_write_there_it_is_read_each_time(tmp_path: Path, reads: list[str]) -> None:
    clock = Clock()
    folder = SessionFolder(tmp_path, 3, 60, clock)
    folder.delete_oldest()
    folder.delete_oldest()
    write(tmp_path, "1", "2", "3", "4")
    clock.now = 61
    folder.delete_oldest()
    assert names(tmp_path) == ["2", "3", "4"]
    write(tmp_path, "5")
    folder.delete_oldest()
    assert names(tmp_path) == ["3", "4", "5"]
    folder.delete_oldest()
    reads.clear()
    folder.delete_oldest()
    assert not reads, "nobody else has written since"


def test_half_written_files_and_others_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / ".1.json.77.tmp").touch()
    (tmp_path / "notes.txt").touch()
    write(tmp_path, "1", "2")
    SessionFolder(tmp_path, 1, 60, Clock()).delete_oldest()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".1.json.77.tmp", "2.json", "notes.txt"]
