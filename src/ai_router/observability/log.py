"""Writes the log: request threads queue records, one thread writes them in batches to LOG_FILE and to stderr.

The file holds bare lines, because scripts rely on their shape (log_lines.py); stderr, which journald and docker
keep, has time and level before each line. With LOG_FORMAT=json both hold a JSON object a line.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ai_router.observability.log_file import LogFile
from ai_router.observability.log_lines import LogEntry, QueueHandler
from ai_router.observability.recorder import Batches
from ai_router.observability.redaction import Scrubber

_QUEUE_LIMIT = 20_000
"""How many records wait for a disk or a terminal that takes no more. Any beyond that are dropped."""
_PORTION = 30
"""Records; each takes 0.02 ms."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Characters that end a line in some program, or that control a terminal."""


class _PlainFormatter(logging.Formatter):
    """Plain lines, ``with_time`` with time and level before each. Lines of a traceback are indented, so that the text
    of an exception cannot pass for a log line."""

    def __init__(self, *, with_time: bool) -> None:
        super().__init__()
        self._with_time = with_time
        self._second = -1
        self._time = ""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self._timestamp(record)} {record.levelname} {record.msg}" if self._with_time else record.msg
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _timestamp(self, record: logging.LogRecord) -> str:
        """As logging writes it. logging calls strftime for each line, which takes longer than all the rest."""
        if int(record.created) != self._second:
            self._second = int(record.created)
            self._time = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{self._time},{int(record.msecs):03d}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_UNPRINTABLE.sub(' ', line)}" for line in lines)


class _JSONFormatter(logging.Formatter):
    """A JSON object a line: ``time``, ``level``, ``logger``, the plain line as ``message``, and its fields by name."""

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


class LogWriter:
    """Takes over the logger ``ai_router`` until ``close``. Raises OSError if ``log_file`` cannot be opened.

    ``max_bytes`` and ``keep``: as of LogFile.
    ``timestamps``: time and level in the file, too. ``json``: JSON objects instead of plain lines, everywhere.
    ``scrubber`` takes secrets out of all that is written. ``level``: what is less severe is not logged.
    """

    def __init__(
        self,
        log_file: Path,
        *,
        timestamps: bool = False,
        json: bool = False,
        scrubber: Scrubber | None = None,
        level: int = logging.INFO,
        max_bytes: int | None = None,
        keep: int = 3,
    ) -> None:
        self.lost = 0
        """How many lines could not be written since the start."""
        self.last_error: str | None = None
        """Why the last write failed; None once one has worked."""
        self._file = LogFile(log_file, max_bytes=max_bytes, keep=keep)
        json_formatter = _JSONFormatter()
        self._file_format = json_formatter if json else _PlainFormatter(with_time=timestamps)
        self._stderr_format = json_formatter if json else _PlainFormatter(with_time=True)
        self._scrub = (scrubber or Scrubber()).text
        self._batches = Batches(self._write, name="log-writer", limit=_QUEUE_LIMIT, portion=_PORTION)
        self._handler = QueueHandler(self._batches)
        self._logger = logging.getLogger("ai_router")
        self._logger.setLevel(level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._batches.start()

    def close(self) -> None:
        """Write what waits, then stop, and give the logger back."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = True
        self._batches.close()
        self._file.close()

    def _write(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            if isinstance(record, LogEntry):
                record.fields = record.args
                record.msg = record.getMessage()
            # One line a record: text from a backend must not begin a line of its own or control a terminal.
            if not (record.msg.isascii() and record.msg.isprintable()):
                record.msg = _UNPRINTABLE.sub(" ", record.msg)
        error_line = ""
        try:
            self._file.write(self._lines(self._file_format, records).encode("utf-8", "backslashreplace"))
            self.last_error = None
        except OSError as error:
            self.lost += len(records)
            self.last_error = error.strerror or type(error).__name__
            error_line = f"the log cannot be written: {self.last_error}\n"
        # stderr may be closed, or lack a character in its encoding; the file is what counts.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(self._lines(self._stderr_format, records) + error_line)
            sys.stderr.flush()

    def _lines(self, formatter: logging.Formatter, records: list[logging.LogRecord]) -> str:
        return self._scrub("".join(f"{formatter.format(record)}\n" for record in records))
