"""How many chat requests may be in flight: fewer than there are threads, so that /health always has one."""

from __future__ import annotations

import threading

from ai_router.errors import Overloaded


class Admission:
    """A counter with a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._inside = 0

    @property
    def inside(self) -> int:
        """How many are in flight now."""
        return self._inside

    def enter(self) -> None:
        """Take a place. Raises Overloaded when there is none."""
        with self._lock:
            if self._inside >= self._limit:
                raise Overloaded(f"all {self._limit} places for requests are taken; try again in a moment")
            self._inside += 1

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._inside -= 1
