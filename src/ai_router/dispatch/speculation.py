"""Calling the primary while the classifier still thinks.

Confirmed, the answer is taken as it stands: its first event is read, the rest waits in the socket's buffer. Not
confirmed, its socket is shut at once, and nobody has seen a byte of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

from ai_router.dispatch.answers import Answer
from ai_router.errors import RouterError, ShuttingDown, SpeculationLost
from ai_router.http.calls import UpstreamCall
from ai_router.resilience.limiter import Permit


class SpeculativeCall:
    """One speculative call, under way from the moment this is made."""

    def __init__(
        self, executor: Executor, forward: Callable[[UpstreamCall, Permit], Answer], call: UpstreamCall, permit: Permit
    ) -> None:
        self.started = time.monotonic()
        self.permit = permit
        self._call = call
        self._ended: float | None = None
        try:
            self._answer: Future[Answer] = executor.submit(forward, call, permit)
        except RuntimeError:  # the threads were ended: nothing is begun any more
            permit.release()
            raise ShuttingDown("the router is being stopped") from None
        self._answer.add_done_callback(self._stamp)

    def confirm(self) -> Answer:
        """The answer, waited for if need be. Raises UpstreamError if the primary failed."""
        return self._answer.result()

    def age_ms(self) -> float:
        """Milliseconds that it has taken, until now or until it failed; a stream's first event does not end it."""
        failed = self._ended is not None and self._answer.done() and self._answer.exception() is not None
        return ((self._ended if failed and self._ended else time.monotonic()) - self.started) * 1000

    def _stamp(self, _: Future[Answer]) -> None:
        self._ended = time.monotonic()

    def cancel(self) -> None:
        """Give the call up; returns at once."""
        self._call.abort(SpeculationLost("another route was decided"))
        self._answer.add_done_callback(_discard)


def _discard(answer: Future[Answer]) -> None:
    """Close an answer that came although nobody wants it; a failure is nobody's business any more."""
    problem = answer.exception()
    if problem is None:
        answer.result().close()
    elif not isinstance(problem, RouterError):
        raise problem
