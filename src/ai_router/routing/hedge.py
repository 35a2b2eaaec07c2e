"""Asking twice when an answer is late: a hung connection or a stuck worker must not cost the whole deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from ai_router.errors import HedgeLost, ShuttingDown, Source, UpstreamError, UpstreamTimeout
from ai_router.http.calls import UpstreamCall

T = TypeVar("T")

_REMEMBERED = 50
_FEWEST = 5
_LATE = 2.0
"""A call is late when it takes so many times the slowest usual one (the 95th percentile of the last _REMEMBERED)."""
_EARLIEST_S = 0.25
_GRACE_S = 0.1
"""For a call's own deadline, which says more exactly what was missing."""
_SHARE = 0.1
"""Of the calls, so many may be asked twice: a classifier that is slow because it is busy must not be given twice the
work.
"""


class Hedge(Generic[T]):
    """Runs calls of one kind on ``at_once`` threads twice over; ``deadline_s`` is the calls' own."""

    def __init__(
        self, at_once: int, deadline_s: float, source: Source, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._threads = ThreadPoolExecutor(2 * at_once + 4, thread_name_prefix="classify")
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

    def first(self, ask: Callable[[UpstreamCall], T], new_call: Callable[[], UpstreamCall]) -> T:
        """The first answer. Raises what a call raised if none succeeds, UpstreamTimeout at the deadline.

        The deadline is the same for both: the second call has what the first has left of it.
        """
        started = self._clock()
        calls: list[tuple[Future[T], UpstreamCall]] = []
        try:
            self._start(ask, new_call, calls)
            late_s = self.late_after_s()
            if late_s is not None and not wait([calls[0][0]], late_s).done and self._allowed():
                self._start(ask, new_call, calls)
            answer = self._first_success(calls, started + self._deadline_s + _GRACE_S)
        finally:
            for future, call in calls:
                if not future.done():
                    call.abort(HedgeLost("the other call was faster, or it is too late"))
                    future.cancel()
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

    def _start(
        self,
        ask: Callable[[UpstreamCall], T],
        new_call: Callable[[], UpstreamCall],
        calls: list[tuple[Future[T], UpstreamCall]],
    ) -> None:
        call = new_call()
        with self._lock:
            self._credit = min(3.0, self._credit + _SHARE)
        try:
            future = self._threads.submit(ask, call)
        except RuntimeError:  # the threads were ended: nothing is begun any more
            raise ShuttingDown("the router is being stopped") from None
        calls.append((future, call))
        # One that still waits for a thread has no socket to shut.
        call.on_abort(future.cancel)

    def _allowed(self) -> bool:
        with self._lock:
            if self._credit < 1:
                return False
            self._credit -= 1
            self.second_calls += 1
            return True

    def _first_success(self, calls: Sequence[tuple[Future[T], UpstreamCall]], end: float) -> T:
        """The first result; a call that fails leaves it to the other. An abort is nobody's to make good."""
        pending, failure = {future for future, _ in calls}, None
        while pending:
            done, pending = wait(pending, max(end - self._clock(), 0), return_when=FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                if future.cancelled():
                    next(call for other, call in calls if other is future).raise_if_aborted()
                    raise ShuttingDown("the router is being stopped")
                problem = future.exception()
                if problem is None:
                    return future.result()
                failure = problem if failure is None or not isinstance(problem, UpstreamError) else failure
            if failure is not None and not isinstance(failure, UpstreamError):
                raise failure
        raise failure or UpstreamTimeout(f"no answer within {self._deadline_s:g} s", self._source)
