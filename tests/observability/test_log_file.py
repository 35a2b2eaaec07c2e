"""The log's file: whoever renames, deletes or moves it away, the next line is written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_router.observability.log_file import LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "app.log"


@pytest.fixture
def log(path: Path) -> Iterator[LogFile]:
    made = LogFile(path)
    yield made
    made.close()


def test_it_is_for_its_owner_only_also_where_it_was_there_before(path: Path, log: LogFile) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    LogFile(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_renamed_file_is_left_to_who_renamed_it(path: Path, log: LogFile) -> None:
    log.write(b"one\n")
    path.rename(path.with_suffix(".old"))
    log.write(b"two\n")
    assert (path.with_suffix(".old").read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")


def test_a_folder_that_is_away_for_a_while_loses_nothing(path: Path, log: LogFile) -> None:
    log.write(b"one\n")
    path.parent.rename(path.parent.with_name("away"))
    log.write(b"two\n")
    path.parent.with_name("away").rename(path.parent)
    log.write(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_deleted_is_made_again(path: Path, log: LogFile, folder: bool) -> None:
    log.write(b"one\n")
    if folder:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    log.write(b"two\n")
    assert path.read_bytes() == b"two\n"


def test_after_a_failure_the_next_line_is_written(path: Path, log: LogFile) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("a file in the way")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        log.write(b"one\n")
    path.parent.unlink()
    log.write(b"two\n")
    assert path.read_bytes() == b"two\n"


def test_a_full_log_is_begun_anew_and_so_many_are_kept(path: Path) -> None:
    log = LogFile(path, max_bytes=4, keep=2)
    for line in (b"one\n", b"two\n", b"thre", b"four", b"5"):
        log.write(line)
    log.close()
    assert path.read_bytes() == b"5"
    assert path.with_name("app.log.1").read_bytes() == b"four"
    assert path.with_name("app.log.2").read_bytes() == b"thre"
    assert not path.with_name("app.log.3").exists()


def test_without_earlier_ones_a_full_log_is_only_begun_anew(path: Path) -> None:
    log = LogFile(path, max_bytes=4, keep=0)
    log.write(b"one\n")
    log.write(b"2")
    log.close()
    assert [file.name for file in path.parent.iterdir()] == ["app.log"]


def test_what_is_no_file_is_written_to_and_never_rotated() -> None:
    log = LogFile(Path("/dev/null"), max_bytes=1)
    log.write(b"one\n")
    log.write(b"two\n")
    log.close()


def test_the_process_s_own_output_is_written_to_also_where_it_is_a_file(tmp_path: Path) -> None:
    code = "from pathlib import Path; from ai_router.observability.log_file import LogFile; "
    code += "log = LogFile(Path('/dev/stdout'), max_bytes=1); log.write(b'one '); log.write(b'two'); log.close()"
    with (tmp_path / "out").open("wb") as output:
        subprocess.run([sys.executable, "-c", code], stdout=output, check=True)
    assert (tmp_path / "out").read_bytes() == b"one two"


def test_two_processes_rotate_one_log_once_and_lose_no_line(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ai_router.observability.log_file import LogFile\n"
        "log = LogFile(Path(sys.argv[1]), max_bytes=1000, keep=1000)\n"
        "for number in range(400): log.write(b'%s %04d %s\\n' % (sys.argv[2].encode(), number, b'x' * 40))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    files = list(path.parent.iterdir())
    lines = [line.split()[:2] for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted([name, f"{number:04d}"] for name in ("a", "b") for number in range(400))
    # Each was full when it was renamed, but for what a line takes.
    assert all(file.stat().st_size >= 1000 for file in files if file != path)
