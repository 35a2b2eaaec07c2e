"""Watching a file that another process may replace: a head, or routes, that were learned while the router runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

WATCH_S = 2.0


class FileWatch:
    """Looks every WATCH_S seconds whether a file has another time or size, and calls ``on_change`` then, from a thread
    of its own; with False where the file is gone."""

    def __init__(self, path: Path, on_change: Callable[[bool], None]) -> None:
        self.path = path
        self._on_change = on_change
        self._stop = threading.Event()
        self._version = self._file_version()
        self._thread = threading.Thread(target=self._watch, name=f"{path.stem}-watch", daemon=True)

    @property
    def exists(self) -> bool:
        """Whether the file was there when it was last looked at."""
        return self._version is not None

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            version = self._file_version()
            if version != self._version:
                self._version = version
                self._on_change(version is not None)

    def _file_version(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
