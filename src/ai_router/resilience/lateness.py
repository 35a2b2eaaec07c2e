"""When a call is late, and whether a second one may be made for it.

What is late follows from what is usual. Second calls are few, whatever happens: who is slow because it is busy must not
get twice the work, nor twice the money.
"""

from __future__ import annotations

import threading
from collections import deque

_DURATIONS_KEPT = 50
_MIN_DURATIONS = 5
_LATE_FACTOR = 2.0
"""A call is late after this many times the 95th percentile of the last _DURATIONS_KEPT durations..."""
_MOST_CREDIT = 3.0


class Lateness:
    """Of calls of one kind. Safe from any thread.

    ``deadline_s``: of a call. ``least_s``: no call is late before. ``share``: of the calls that may be made twice, with
    up to three in reserve.
    """

    def __init__(self, deadline_s: float, *, least_s: float, share: float) -> None:
        self._deadline_s = deadline_s
        self._least_s = least_s
        self._share = share
        self._lock = threading.Lock()
        self._durations_s: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        self._credit = 1.0
        self.second_calls = 0
        """How many second calls were made since the start."""

    def late_after_s(self) -> float | None:
        """Seconds to wait before the second call; None if the deadline comes first.

        A quarter of the deadline while fewer than _MIN_DURATIONS durations are known.
        """
        with self._lock:
            if len(self._durations_s) < _MIN_DURATIONS:
                return self._deadline_s / 4
            usual = sorted(self._durations_s)[int(0.95 * (len(self._durations_s) - 1))]
        late_s = max(self._least_s, _LATE_FACTOR * usual)
        return late_s if late_s < self._deadline_s else None

    def began(self) -> None:
        """A call has begun."""
        with self._lock:
            self._credit = min(_MOST_CREDIT, self._credit + self._share)

    def took(self, seconds: float) -> None:
        """An answer came after so long."""
        with self._lock:
            self._durations_s.append(seconds)

    def take_second(self) -> bool:
        """Whether a second call may be made now; it counts then."""
        with self._lock:
            if self._credit < 1:
                return False
            self._credit -= 1
            self.second_calls += 1
            return True

    def give_back(self) -> None:
        """The second call was not made: there was nobody to make it."""
        with self._lock:
            self._credit += 1
            self.second_calls -= 1
