"""Hedged calls: a second call on a new connection when the first takes unusually long, and the first answer counts.

A hung connection or a stuck worker must not cost the whole deadline (Dean and Barroso, The Tail at Scale, 2013).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from ai_router.errors import HedgeLost, ShuttingDown, Source, UpstreamError, UpstreamTimeout
from ai_router.http.calls import UpstreamCall
from ai_router.resilience.lateness import Lateness

T = TypeVar("T")

_LEAST_LATE_S = 0.25
"""No call is late before."""
_DEADLINE_GRACE_S = 0.1
"""Seconds to wait beyond the deadline, so that a call's own timeout is raised: it says more exactly what was late."""
_HEDGED_SHARE = 0.1
"""At most this share of calls is made twice."""


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
        self._lateness = Lateness(deadline_s, least_s=_LEAST_LATE_S, share=_HEDGED_SHARE)

    @property
    def second_calls(self) -> int:
        """How many second calls were made since the start."""
        return self._lateness.second_calls

    def late_after_s(self) -> float | None:
        """Seconds to wait before the second call; None if the deadline comes first."""
        return self._lateness.late_after_s()

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
            if late_s is not None and not wait([calls[0][0]], late_s).done and self._lateness.take_second():
                self._start(ask, new_call, calls)
            answer = self._first_success(calls, started + self._deadline_s + _DEADLINE_GRACE_S)
        finally:
            for future, call in calls:
                if not future.done():
                    call.abort(HedgeLost("the other call was faster, or it is too late"))
                    future.cancel()
        self._lateness.took(self._clock() - started)
        return answer

    def _start(
        self,
        ask: Callable[[UpstreamCall], T],
        new_call: Callable[[], UpstreamCall],
        calls: list[tuple[Future[T], UpstreamCall]],
    ) -> None:
        call = new_call()
        self._lateness.began()
        try:
            future = self._threads.submit(ask, call)
        except RuntimeError:  # the threads were ended: nothing is begun any more
            raise ShuttingDown("the router is being stopped") from None
        calls.append((future, call))
        # One that still waits for a thread has no socket to shut.
        call.on_abort(future.cancel)

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
