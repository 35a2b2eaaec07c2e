"""A SQLite file that is deleted, replaced or broken while it is in use."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ai_router.storage.database_file import DatabaseFile, says_broken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "usage.db"


def test_a_new_file_is_made_with_its_folder_for_its_owner_only(path: Path) -> None:
    file = DatabaseFile(path)
    assert not file.is_gone()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_file_is_gone_when_it_is_deleted_and_when_another_takes_its_place(path: Path) -> None:
    file = DatabaseFile(path)
    path.rename(path.with_name("other"))
    assert file.is_gone()
    path.touch()
    assert file.is_gone()


def test_a_file_is_set_aside_with_its_companions(path: Path) -> None:
    file = DatabaseFile(path)
    path.write_bytes(b"broken")
    Path(f"{path}-wal").write_bytes(b"log")
    aside = file.set_aside()
    assert aside is not None
    assert aside.name.startswith("usage.db.broken-")
    assert aside.read_bytes() == b"broken"
    assert Path(f"{aside}-wal").read_bytes() == b"log"
    assert [found.name for found in path.parent.iterdir() if "broken" not in found.name] == []


def test_of_processes_that_find_a_broken_file_together_one_sets_it_aside_and_none_the_new_one(path: Path) -> None:
    files = [DatabaseFile(path) for _ in range(20)]
    path.write_bytes(b"broken")

    def renew(file: DatabaseFile) -> bool:
        aside = file.set_aside()
        DatabaseFile(path)
        return aside is not None

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(renew, files)) == 1
    assert path.read_bytes() == b""


def test_a_deleted_file_is_not_set_aside(path: Path) -> None:
    file = DatabaseFile(path)
    path.unlink()
    assert file.set_aside() is None


@pytest.mark.parametrize("content", [b"not a database, whatever it may be", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_errors_of_a_file_that_is_no_database_say_so(path: Path, content: bytes) -> None:
    DatabaseFile(path)
    path.write_bytes(content)
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("CREATE TABLE a (b)")
    assert says_broken(caught.value)


def test_other_errors_say_nothing_of_the_kind(path: Path) -> None:
    with sqlite3.connect(":memory:") as connection, pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT * FROM nowhere")
    assert not says_broken(caught.value)
    assert not says_broken(OSError())
    assert not says_broken(None)
