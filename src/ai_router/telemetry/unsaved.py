"""A file for rows that the database did not take, until it does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import orjson

from ai_router.telemetry.usage_rows import Rows

_AT_ONCE = 500


class Unsaved:
    """One line for each request. Several processes may use the same file: whoever reads or writes it locks it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, rows: Iterable[Rows]) -> None:
        """Append rows. Raises OSError."""
        lines = b"".join(orjson.dumps([row.request, row.exported]) + b"\n" for row in rows)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Whoever had the lock before may have read and deleted this very file.
                if os.fstat(file.fileno()).st_nlink:
                    file.write(lines)
                    return

    def take(self, save: Callable[[Sequence[Rows]], None]) -> None:
        """Hand all rows to ``save``, some at a time, and delete the file if it took them all. Raises what that raises.

        Rows keep their ids: a part that was saved before may be handed over again.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            some: list[Rows] = []
            for line in file:
                if (rows := _parsed(line)) is not None:
                    some.append(rows)
                if len(some) == _AT_ONCE:
                    save(some)
                    some = []
            save(some)
            self._path.unlink(missing_ok=True)


def _parsed(line: bytes) -> Rows | None:
    """None for a line that a crash or a full disk has cut off."""
    try:
        request, exported = orjson.loads(line)
    except ValueError:
        return None
    return Rows(request, exported)
