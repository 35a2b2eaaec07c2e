"""The log's file: for its owner's eyes only, rotated by itself, and found again when it was gone for a while."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

OWN_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Paths of what this process has open from the start, and its file descriptors."""
_MODE = 0o600


class LogFile:
    """Appends to ``path``. ``max_bytes``: at this size it becomes ``path``.1, the one before that .2, and so on up to
    ``keep``; older ones are deleted. None: it grows for ever. Raises OSError where it cannot be opened.

    What others do with the file is followed before each write: it was renamed (logrotate), deleted, or its folder was
    moved away and came back. Several processes may write to one log. Not safe from several threads.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None, keep: int = 3) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor: int | None = None
        self._open()

    def write(self, data: bytes) -> None:
        """Append ``data``, all of it or none. Raises OSError."""
        descriptor = self._current()
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if self._max_bytes is not None and str(self._path) not in OWN_STREAMS and _size(descriptor) >= self._max_bytes:
            self._rotate(descriptor)

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _current(self) -> int:
        """The open file, if it still is the one at ``path``, or went away with its folder; else the one there now."""
        if self._descriptor is None:
            return self._open()
        if str(self._path) in OWN_STREAMS:
            return self._descriptor
        if self._is_current(self._descriptor):
            return self._descriptor
        # Moved away with its folder: it may come back. Deleted, or renamed alone: a new one is due.
        if os.fstat(self._descriptor).st_nlink and not self._path.parent.exists():
            return self._descriptor
        self.close()
        return self._open()

    def _open(self) -> int:
        if (own := OWN_STREAMS.get(str(self._path))) is not None:
            # Open already, perhaps by somebody else: the path itself may be refused to us.
            self._descriptor = os.dup(own)
            return self._descriptor
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
        if _size(descriptor) >= 0:
            # Of an older version, or of somebody's umask. Not ours: it stays as its owner wants it.
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, _MODE)
        self._descriptor = descriptor
        return descriptor

    def _rotate(self, descriptor: int) -> None:
        """Rename the files, unless another process that writes to the same log has just done so."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if self._is_current(descriptor):
            self._rename()
        # Whoever waits for the lock sees then that the file is no longer the log.
        self.close()
        self._open()

    def _is_current(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _rename(self) -> None:
        for number in range(self._keep, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            self._path.unlink(missing_ok=True)


def _size(descriptor: int) -> int:
    """The size of a regular file; -1 for anything else, as /dev/stdout may be."""
    found = os.fstat(descriptor)
    return found.st_size if stat.S_ISREG(found.st_mode) else -1
