"""How many chat requests may be in flight: fewer than there are threads, so that /health always has one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ai_router.errors import Overloaded


class Admission:
    """A counter with a limit."""

    def __init__(self, limit: int, on_refusal: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._inside = 0

    @property
    def inside(self) -> int:
        """How many are in flight now."""
        return self._inside

    def enter(self) -> None:
        """Take a place. Raises Overloaded when there is none."""
        with self._lock:
            if self._inside < self._limit:
                self._inside += 1
                return
        self._on_refusal()
        raise Overloaded(f"all {self._limit} places for requests are taken; try again in a moment")

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._inside -= 1
