"""Where log lines go: a list on the request's side, one thread that writes the file and stderr on the other.

The thread writes in batches: waking it for every line would have it fight the request threads for the interpreter's
lock, which was measured to cost a request a fifth of its time (docs/decisions/0004). The file holds the bare lines,
because the contract fixes their shape; stderr, which journald and docker keep, has time and level before each.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

from ai_router.telemetry.batches import Batches

_WAITING_LIMIT = 20_000
"""Lines that wait for a disk or a terminal that has stopped taking them; beyond that they are dropped."""

_BARE = logging.Formatter("%(message)s")
_DATED = logging.Formatter("%(asctime)s %(levelname)s %(message)s")


class _BatchHandler(logging.Handler):
    """Merges a record's arguments on the request's thread, since they may change, and leaves the rest to the writer."""

    def __init__(self, batches: Batches[logging.LogRecord]) -> None:
        super().__init__()
        self._batches = batches

    def emit(self, record: logging.LogRecord) -> None:
        # One line each: nothing that a backend says may begin a line of its own.
        record.msg, record.args = record.getMessage().replace("\n", " ").replace("\r", " "), None
        self._batches.put(record)


class LogWriter:
    """The running logging set-up. ``close`` writes what is waiting and puts the logger back."""

    def __init__(self, log_file: Path, *, timestamps: bool = False, level: int = logging.INFO) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self._file = WatchedFileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        self._file_format = _DATED if timestamps else _BARE
        self._batches = Batches(self._write, name="log-writer", limit=_WAITING_LIMIT)
        self._handler = _BatchHandler(self._batches)
        self._logger = logging.getLogger("ai_router")
        self._logger.setLevel(level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._batches.start()

    def close(self) -> None:
        """Write what is waiting, then stop."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = True
        self._batches.close()
        self._file.close()

    def _write(self, records: list[logging.LogRecord]) -> None:
        complaint = ""
        try:
            # A rotated file is opened anew.
            self._file.reopenIfNeeded()
            if (stream := self._file.stream) is not None:
                stream.write("".join(f"{self._file_format.format(record)}\n" for record in records))
                stream.flush()
        except OSError as problem:
            complaint = f"the log cannot be written: {problem.strerror}\n"
        # Nobody may be reading stderr any more, or not in this encoding; the file is what counts.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("".join(f"{_DATED.format(record)}\n" for record in records) + complaint)
            sys.stderr.flush()
