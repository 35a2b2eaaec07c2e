"""Hedged calls: a second call on a new connection when the first takes unusually long, and the first answer counts.

A hung connection or a stuck worker must not cost the whole deadline (Dean and Barroso, The Tail at Scale, 2013).
"""

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

_DURATIONS_KEPT = 50
_MIN_DURATIONS = 5
_LATE_FACTOR = 2.0
"""A call is late after this many times the 95th percentile of the last _DURATIONS_KEPT durations..."""
_MIN_LATE_S = 0.25
"""...but not before this many seconds."""
_DEADLINE_GRACE_S = 0.1
"""Seconds to wait beyond the deadline, so that a call's own timeout is raised: it says more exactly what was late."""
_HEDGED_SHARE = 0.1
"""At most this share of calls is made twice, with up to three in reserve: a classifier that is slow because it is
busy must not get twice the work."""


class Hedge(Generic[T]):
    """Hedges calls of one kind. Safe from any thread.

    ``max_concurrent`` callers may ask at the same time; there are threads for two calls of each. ``deadline_s`` is the
    timeout that the calls have themselves; ``source`` names the backend in errors.
    """

    def __init__(
        self, max_concurrent: int, deadline_s: float, source: Source, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._threads = ThreadPoolExecutor(2 * max_concurrent + 4, thread_name_prefix="classify")
        self._deadline_s = deadline_s
        self._clock = clock
        self._lock = threading.Lock()
        self._durations_s: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        self._credit = 1.0
        self.second_calls = 0
        """How many second calls were made since the start."""

    def close(self) -> None:
        """End the threads; calls under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def first(self, ask: Callable[[UpstreamCall], T], new_call: Callable[[], UpstreamCall]) -> T:
        """Run ``ask`` on a call from ``new_call``, and on a second one if the first is late; the first answer.

        Both share one deadline: the second call has what the first has left of it. The call that was not needed is
        aborted with HedgeLost. Raises what a call raised if none succeeds, UpstreamTimeout at the deadline,
        ShuttingDown after ``close``.
        """
        started = self._clock()
        calls: list[tuple[Future[T], UpstreamCall]] = []
        try:
            self._start(ask, new_call, calls)
            late_s = self.late_after_s()
            if late_s is not None and not wait([calls[0][0]], late_s).done and self._take_credit():
                self._start(ask, new_call, calls)
            answer = self._first_success(calls, started + self._deadline_s + _DEADLINE_GRACE_S)
        finally:
            for future, call in calls:
                if not future.done():
                    call.abort(HedgeLost("the other call was faster, or it is too late"))
                    future.cancel()
        with self._lock:
            self._durations_s.append(self._clock() - started)
        return answer

    def late_after_s(self) -> float | None:
        """Seconds to wait before the second call; None if the deadline comes first.

        A quarter of the deadline while fewer than _MIN_DURATIONS durations are known.
        """
        with self._lock:
            if len(self._durations_s) < _MIN_DURATIONS:
                return self._deadline_s / 4
            usual = sorted(self._durations_s)[int(0.95 * (len(self._durations_s) - 1))]
        late_s = max(_MIN_LATE_S, _LATE_FACTOR * usual)
        return late_s if late_s < self._deadline_s else None

    def _start(
        self,
        ask: Callable[[UpstreamCall], T],
        new_call: Callable[[], UpstreamCall],
        calls: list[tuple[Future[T], UpstreamCall]],
    ) -> None:
        call = new_call()
        with self._lock:
            self._credit = min(3.0, self._credit + _HEDGED_SHARE)
        try:
            future = self._threads.submit(ask, call)
        except RuntimeError:  # the threads were ended: nothing is begun any more
            raise ShuttingDown("the router is being stopped") from None
        calls.append((future, call))
        # One that still waits for a thread has no socket to shut.
        call.on_abort(future.cancel)

    def _take_credit(self) -> bool:
        with self._lock:
            if self._credit < 1:
                return False
            self._credit -= 1
            self.second_calls += 1
            return True

    def _first_success(self, calls: Sequence[tuple[Future[T], UpstreamCall]], end: float) -> T:
        """The first result. An UpstreamError of one call leaves it to the other; anything else, an abort among it, is
        raised at once."""
        pending, failure = {future for future, _ in calls}, None
        while pending:
            done, pending = wait(pending, max(end - self._clock(), 0), return_when=FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                if future.cancelled():
                    next(call for other, call in calls if other is future).raise_if_aborted()
                    raise ShuttingDown("the router is being stopped")
                error = future.exception()
                if error is None:
                    return future.result()
                failure = error if failure is None or not isinstance(error, UpstreamError) else failure
            if failure is not None and not isinstance(failure, UpstreamError):
                raise failure
        raise failure or UpstreamTimeout(f"no answer within {self._deadline_s:g} s", self._source)
