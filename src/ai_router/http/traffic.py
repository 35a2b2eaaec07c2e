"""What calls cost in the coin of the network and of the backend: bytes, and a share of its time.

A backend that works on several calls at once divides its time among them. Each second counts once, split evenly
between the calls that are open: what all calls were given adds up to the time that the backend was busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Occupancy:
    """One backend's time. ``enter`` and ``leave`` from any thread; the clock in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._share = 0.0
        """Seconds that a call which had been open all along would have been given."""
        self._at = clock()

    def enter(self) -> float:
        """A call begins; returns what to hand to ``since`` and ``leave``."""
        with self._lock:
            self._advance()
            self._open += 1
            return self._share

    def since(self, entered: float) -> float:
        """Seconds that a call which is still open has been given."""
        with self._lock:
            self._advance()
            return self._share - entered

    def leave(self, entered: float) -> float:
        """The call ends; returns the seconds that it was given."""
        with self._lock:
            self._advance()
            self._open -= 1
            return self._share - entered

    def _advance(self) -> None:
        now = self._clock()
        if self._open:
            self._share += (now - self._at) / self._open
        self._at = now
