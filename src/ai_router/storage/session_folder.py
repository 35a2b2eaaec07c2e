"""The files in a folder whose names begin with the time, and deleting the oldest beyond a limit.

The names are kept in memory, so that the folder is not read again and again. It is read once a minute, since somebody
may have removed files; and at each cleanup, as long as other processes write into it as well.
"""

from __future__ import annotations

import bisect
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_SUFFIX = ".json"
_AT_ONCE = 250
"""So many names are read before other threads get their turn: a thousand take a millisecond."""
_TURN_S = 0.0002


class SessionFolder:
    """``max_files``: how many files are kept. ``read_every_s``: how long what is known of the folder is good for. For
    one thread."""

    def __init__(
        self,
        directory: Path,
        max_files: int,
        read_every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._max_files = max_files
        self._read_every_s = read_every_s
        self._clock = clock
        self._names: list[str] | None = None
        """Of all files, in order; None: not known."""
        self._read_at = 0.0
        self._others_write = True  # until it has been read twice, and nobody did

    def added(self, name: str) -> None:
        """This process has written a file."""
        if self._names is not None:
            bisect.insort(self._names, name)

    def forget(self) -> None:
        """The folder is another one now."""
        self._names = None

    def delete_oldest(self) -> None:
        """Delete the oldest files beyond the limit. Raises OSError."""
        names = self._names
        if names is None or self._others_write or self._clock() - self._read_at >= self._read_every_s:
            names = self._read(names)
        excess = len(names) - self._max_files
        if excess > 0:
            for name in names[:excess]:
                # Another process may have deleted it.
                (self._directory / name).unlink(missing_ok=True)
            del names[:excess]

    def _read(self, known: list[str] | None) -> list[str]:
        names = sorted(self._found())
        if known is not None:
            self._others_write = bool(set(names).difference(known))
        self._names, self._read_at = names, self._clock()
        return names

    def _found(self) -> Iterator[str]:
        with os.scandir(self._directory) as entries:
            for number, entry in enumerate(entries, start=1):
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                    yield entry.name
                if number % _AT_ONCE == 0:
                    time.sleep(_TURN_S)
