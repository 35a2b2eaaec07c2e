"""Where log lines go: a list on the request's side, one thread that writes the file and stderr on the other.

The thread writes in batches: waking it for every line would have it fight the request threads for the interpreter's
lock, which was measured to cost a request a fifth of its time (docs/decisions/0004). The file holds the bare lines,
because the contract fixes their shape; stderr, which journald and docker keep, has time and level before each.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import orjson

from ai_router.observability.batches import Batches
from ai_router.observability.log_lines import LogEntry
from ai_router.observability.redaction import Scrubber

_QUEUE_LIMIT = 20_000
"""Lines that wait for a disk or a terminal that has stopped taking them; beyond that they are dropped."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""All that ends a line somewhere, or tells a terminal what to do."""


class _PlainFormatter(logging.Formatter):
    """Lines, with time and level before each if ``with_time``; those of a traceback are set in, so that whatever an
    exception says is not taken for a line of ours."""

    def __init__(self, *, with_time: bool) -> None:
        super().__init__()
        self._with_time = with_time
        self._second = -1
        self._time = ""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self._timestamp(record)} {record.levelname} {record.msg}" if self._with_time else record.msg
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _timestamp(self, record: logging.LogRecord) -> str:
        """As logging writes it; its own way over strftime, for each line, takes longer than all the rest."""
        if int(record.created) != self._second:
            self._second = int(record.created)
            self._time = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{self._time},{int(record.msecs):03d}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_UNPRINTABLE.sub(' ', line)}" for line in lines)


class _JSONFormatter(logging.Formatter):
    """An object a line: when, how bad, the plain line as ``message``, and its fields by name."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.msg,
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        fields = {name: value for name, value in getattr(record, "fields", {}).items() if name not in entry}
        return _UNPRINTABLE.sub(" ", orjson.dumps(entry | fields, default=str).decode())


class _BatchHandler(logging.Handler):
    """Merges a record's arguments on the request's thread, since they may change, and leaves the rest to the writer. So
    are those of the contract's lines, which are made for nothing else."""

    def __init__(self, batches: Batches[logging.LogRecord]) -> None:
        super().__init__()
        self._batches = batches

    def handle(self, record: logging.LogRecord) -> bool:
        """Without logging's lock, which the list does not need."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        # log_lines's lines have named fields; in JSON they are told by name as well.
        if not isinstance(record, LogEntry):
            record.fields = record.args if isinstance(record.args, Mapping) else {}
            record.msg, record.args = record.getMessage(), None
        self._batches.put(record)


class LogWriter:
    """The running logging set-up. ``close`` writes what is waiting and puts the logger back."""

    def __init__(
        self,
        log_file: Path,
        *,
        timestamps: bool = False,
        json: bool = False,
        scrubber: Scrubber | None = None,
        level: int = logging.INFO,
    ) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self._file = WatchedFileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        json_formatter = _JSONFormatter()
        self._file_format = json_formatter if json else _PlainFormatter(with_time=timestamps)
        self._stderr_format = json_formatter if json else _PlainFormatter(with_time=True)
        self._scrub = (scrubber or Scrubber()).text
        self._batches = Batches(self._write, name="log-writer", limit=_QUEUE_LIMIT)
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
        for record in records:
            if isinstance(record, LogEntry):
                record.fields = record.args
                record.msg = record.getMessage()
            # One line each: nothing that a backend says may begin a line of its own, or move a terminal's cursor.
            if not (record.msg.isascii() and record.msg.isprintable()):
                record.msg = _UNPRINTABLE.sub(" ", record.msg)
        error_line = ""
        try:
            # A rotated file is opened anew.
            self._file.reopenIfNeeded()
            if (stream := self._file.stream) is not None:
                stream.write(self._lines(self._file_format, records))
                stream.flush()
        except OSError as error:
            error_line = f"the log cannot be written: {error.strerror}\n"
        # Nobody may be reading stderr any more, or not in this encoding; the file is what counts.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(self._lines(self._stderr_format, records) + error_line)
            sys.stderr.flush()

    def _lines(self, formatter: logging.Formatter, records: list[logging.LogRecord]) -> str:
        return self._scrub("".join(f"{formatter.format(record)}\n" for record in records))
