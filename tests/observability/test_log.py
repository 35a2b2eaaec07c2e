"""Where log lines go."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from ai_router.observability.log import LogWriter

log = logging.getLogger("ai_router.test")


def test_the_file_has_bare_lines_and_stderr_dated_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = LogWriter(tmp_path / "deep" / "app.log")
    log.info("Session saved: %s", "abc")
    writer.close()
    assert (tmp_path / "deep" / "app.log").read_text() == "Session saved: abc\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO Session saved: abc\n", capsys.readouterr().err)


def test_a_broken_stderr_does_not_stop_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Broken())
    writer = LogWriter(tmp_path / "app.log")
    log.info("gr\u00fc\u00df dich")
    writer.close()
    assert (tmp_path / "app.log").read_text("utf-8") == "gr\u00fc\u00df dich\n"


def test_what_has_line_ends_in_it_is_one_line(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "app.log")
    log.warning("refused: %s", "no\nREQUEST session=forged")
    writer.close()
    assert (tmp_path / "app.log").read_text() == "refused: no REQUEST session=forged\n"


def test_a_traceback_is_kept(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "app.log")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it failed")
    writer.close()
    written = (tmp_path / "app.log").read_text()
    assert "it failed" in written
    assert "ValueError: why" in written


def test_a_file_that_was_rotated_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    first = LogWriter(path)
    log.info("before")
    first.close()
    second = LogWriter(path)
    path.rename(tmp_path / "app.log.1")
    log.info("after")
    second.close()
    assert path.read_text() == "after\n"


def test_what_an_exception_says_cannot_pass_for_a_line_of_ours(tmp_path: Path) -> None:
    for json in (False, True):
        writer = LogWriter(tmp_path / f"{json}.log", json=json)
        try:
            raise ValueError("bad\nREQUEST session=forged\x1b[2J\x9b")
        except ValueError:
            log.exception("it failed")
        writer.close()
        written = (tmp_path / f"{json}.log").read_text()
        assert not any(line.startswith("REQUEST") for line in written.splitlines())
        assert not {"\x1b", "\x9b"} & set(written)
