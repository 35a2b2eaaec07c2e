"""The SQLite file behind the database of usage: is it still the one that was opened, and setting a broken one aside."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from pathlib import Path

_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY_CODE = 0xFF
"""The lower byte of an error code of SQLite names its kind: https://www.sqlite.org/rescode.html"""
_COMPANIONS = ("", "-wal", "-shm")
"""The ends of the names of a database's files."""


def says_broken(error: BaseException | None) -> bool:
    """Whether this error of SQLite means that the file is no database, or a damaged one."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _BROKEN


class DatabaseFile:
    """The file at ``path``. To be made before the file is opened for the first time, which makes it if need be."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._path = path
        self._identity = self._current()

    def is_gone(self) -> bool:
        """Whether the file was deleted or replaced: what is written into the one that is open is lost."""
        return self._current() != self._identity

    def set_aside(self) -> Path | None:
        """Rename the file, with its companions, so that a new one can be made. Returns its new name; None if another
        process did so before, or if somebody has deleted it. Raises OSError.

        No connection of this process may be in use: closing the file here drops the locks of all of them.
        """
        aside = self._path.with_name(f"{self._path.name}.broken-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if self.is_gone():
                    return None
                for end in _COMPANIONS:
                    companion = Path(f"{self._path}{end}")
                    if companion.exists():
                        companion.rename(f"{aside}{end}")
        except FileNotFoundError:
            return None
        return aside

    def _current(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - for each batch and look-up
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
