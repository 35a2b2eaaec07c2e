"""Whether to call the primary while the classifier thinks: a pure rule, and the budget that it keeps to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ai_router.routing.head.model import Guess
from ai_router.settings import SpeculationMode
from ai_router.types import Label

UNLIKELY = 0.25
"""Below this probability of MODERATE the call would be given up three times out of four."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Requests waiting in the primary's own queue (None: it does not tell), and the seconds of wasted work that the
    budget still allows. Whether one of its slots is free is its gate's to say, which takes it at the same moment."""

    waiting: int | None
    budget_left_s: float


def why_not(mode: SpeculationMode, guess: Guess | None, pressure: Pressure) -> str | None:
    """The reason not to speculate, in a word for metrics; None to go ahead."""
    if mode is SpeculationMode.OFF:
        return "off"
    if mode is SpeculationMode.ALWAYS:
        return None
    if guess is not None and guess.probabilities[Label.MODERATE] < UNLIKELY:
        return "unlikely"
    if pressure.waiting:
        return "saturated"
    if pressure.budget_left_s <= 0:
        return "budget"
    return None


class Budget:
    """Seconds of the primary's time that lost speculations may take: ``per_minute``, refilled as time passes. Safe from
    any thread. A call that is under way when the budget ends may overdraw it."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left = per_minute
        self._counted_at = clock()
        self._lock = threading.Lock()

    def left_s(self) -> float:
        """What may still be wasted now."""
        with self._lock:
            self._refill()
            return self._left

    def spend(self, seconds: float) -> None:
        """A lost call took so long."""
        with self._lock:
            self._refill()
            self._left -= seconds

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._per_minute, self._left + (now - self._counted_at) * self._per_minute / 60)
        self._counted_at = now
