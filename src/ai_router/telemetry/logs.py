"""Where log lines go: a queue on the request's side, one thread that writes the file and stderr on the other.

The file holds the bare lines, because the contract fixes their shape (docs/decisions/0004); stderr, which journald and
docker keep, has the time and the level in front of each.
"""

from __future__ import annotations

import logging
import queue
import sys
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path

_BARE = "%(message)s"
_DATED = "%(asctime)s %(levelname)s %(message)s"


class _QuickQueueHandler(QueueHandler):
    """Formats on the request's thread only what must be: arguments are merged, tracebacks rendered, no more."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if record.exc_info:
            rendered: logging.LogRecord = super().prepare(record)
            return rendered
        record.msg, record.args = record.getMessage(), None
        return record


class LogWriter:
    """The running logging set-up. ``close`` writes what is queued and puts the root logger back."""

    def __init__(self, log_file: Path | None, *, timestamps: bool = False, level: int = logging.INFO) -> None:
        handlers: list[logging.Handler] = [_formatted(logging.StreamHandler(sys.stderr), _DATED)]
        if log_file is not None:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_formatted(WatchedFileHandler(log_file), _DATED if timestamps else _BARE))
        entries: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._handler = _QuickQueueHandler(entries)
        self._listener = QueueListener(entries, *handlers)
        self._handlers = handlers
        self._logger = logging.getLogger("ai_router")
        self._logger.setLevel(level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._listener.start()

    def close(self) -> None:
        """Write what is queued, then stop."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = True
        self._listener.stop()
        for handler in self._handlers:
            handler.close()


def _formatted(handler: logging.Handler, fmt: str) -> logging.Handler:
    handler.setFormatter(logging.Formatter(fmt))
    return handler
