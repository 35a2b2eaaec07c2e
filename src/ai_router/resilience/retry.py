"""How often, how late, and whether at all a failed call is made again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

_JITTER = 0.25
_SHARE = 0.2
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries, in seconds: ``first_s``, twice that, four times; never above eight times."""

    first_s: float = 1.0

    def delay_s(self, number: int, chance: float) -> float:
        """The wait before retry ``number``, from 1; ``chance`` in [0, 1) spreads those who failed together."""
        plain = self.first_s * float(2 ** min(number - 1, 3))
        return plain * (1 - _JITTER + 2 * _JITTER * chance)


class RetryBudget:
    """Retries under way may be a fifth of all active requests, or three, so that a backend that is down is not asked
    three times as much. Safe from any thread."""

    def __init__(self, active: Callable[[], int]) -> None:
        self._active = active
        self._lock = threading.Lock()
        self._under_way = 0

    def take(self) -> bool:
        """Begin a retry, if one more may be under way."""
        with self._lock:
            if self._under_way >= max(_LEAST, int(_SHARE * self._active())):
                return False
            self._under_way += 1
            return True

    def release(self) -> None:
        """A retry has ended, however it did."""
        with self._lock:
            self._under_way -= 1
