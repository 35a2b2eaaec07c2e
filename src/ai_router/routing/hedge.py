"""Asking twice when an answer is late: a hung connection or a stuck worker must not cost the whole deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from ai_router.errors import HedgeLost, UpstreamError
from ai_router.upstream.leg import Leg

T = TypeVar("T")

_REMEMBERED = 50
_FEWEST = 5
_LATE = 2.0
"""A call is late when it takes so many times the slowest usual one (the 95th percentile of the last _REMEMBERED)."""
_EARLIEST_S = 0.25
_SHARE = 0.1
"""Of the calls, so many may be asked twice: a classifier that is slow because it is busy must not be given twice the
work.
"""


class Hedge(Generic[T]):
    """Runs calls of one kind on ``at_once`` threads twice over; ``deadline_s`` is the calls' own."""

    def __init__(self, at_once: int, deadline_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = ThreadPoolExecutor(2 * at_once, thread_name_prefix="classify")
        self._deadline_s = deadline_s
        self._clock = clock
        self._lock = threading.Lock()
        self._took_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._credit = 1.0
        self.second_calls = 0
        """How often a call was made twice, since the start."""

    def close(self) -> None:
        """End the threads; calls under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def first(self, call: Callable[[Leg], T], new_leg: Callable[[], Leg]) -> T:
        """The first answer. Raises what the last failing call raised if none succeeds."""
        started = self._clock()
        calls = {self._start(call, new_leg)}
        late_s = self.late_after_s()
        if late_s is not None and not wait([future for future, _ in calls], late_s).done and self._allowed():
            calls.add(self._start(call, new_leg))
        try:
            answer = _first_success(calls)
        finally:
            for future, leg in calls:
                if not future.done():
                    leg.abort(HedgeLost("the other call was faster"))
        with self._lock:
            self._took_s.append(self._clock() - started)
        return answer

    def late_after_s(self) -> float | None:
        """How long to wait before asking again; None while too little is known, or if the deadline comes first."""
        with self._lock:
            if len(self._took_s) < _FEWEST:
                return self._deadline_s / 4
            usual = sorted(self._took_s)[int(0.95 * (len(self._took_s) - 1))]
        late_s = max(_EARLIEST_S, _LATE * usual)
        return late_s if late_s < self._deadline_s else None

    def _start(self, call: Callable[[Leg], T], new_leg: Callable[[], Leg]) -> tuple[Future[T], Leg]:
        leg = new_leg()
        with self._lock:
            self._credit = min(3.0, self._credit + _SHARE)
        return self._threads.submit(call, leg), leg

    def _allowed(self) -> bool:
        with self._lock:
            if self._credit < 1:
                return False
            self._credit -= 1
            self.second_calls += 1
            return True


def _first_success(calls: set[tuple[Future[T], Leg]]) -> T:
    """The first result; a call that fails leaves it to the others, the last failure is raised."""
    pending = {future for future, _ in calls}
    while True:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        failures = []
        for future in done:
            problem = future.exception()
            if problem is None:
                return future.result()
            failures.append(problem)
        if not pending or not all(isinstance(problem, UpstreamError) for problem in failures):
            raise failures[-1]
