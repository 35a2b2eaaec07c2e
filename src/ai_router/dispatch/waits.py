"""Waits as values: a pause, a place in the queue, work on another thread; and what runs a generator of them.

The code that finds an answer is a generator that yields ``Wait``s, and a ``WaitDriver`` runs it (docs/decisions/0014).
An abort of the request ends every wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Generic, Protocol, TypeVar

from ai_router.errors import RouterError
from ai_router.http.calls import CancelScope
from ai_router.resilience.limiter import Permit, QueueTicket

T = TypeVar("T")


class Wait(Protocol):
    """Something to wait for."""

    def wait(self, seconds: float) -> bool:
        """Wait, at most ``seconds``. Returns whether the wait is over. Raises the reason if the request was aborted."""

    def notice(self) -> str:
        """A few words for the client, sent as an SSE comment."""


Waiting = Generator[Wait, None, T]
"""A generator that yields waits and returns a T."""


class TimedWait:
    """A pause of ``seconds`` before a retry; ``what`` says why."""

    def __init__(self, scope: CancelScope, seconds: float, what: str, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._what = what
        self._clock = clock
        self._end = clock() + seconds

    def wait(self, seconds: float) -> bool:
        woken = threading.Event()
        with self._scope.on_abort(woken.set):
            woken.wait(max(0.0, min(seconds, self._end - self._clock())))
        self._scope.raise_if_aborted()
        return self._clock() >= self._end

    def notice(self) -> str:
        return f"{self._what}, trying again in {max(0.0, self._end - self._clock()):.0f} s"


class QueueWait:
    """The wait for the permit of a queue ticket, until ``end`` at the latest, in seconds of ``clock``."""

    def __init__(self, scope: CancelScope, ticket: QueueTicket, end: float, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._ticket = ticket
        self._end = end
        self._clock = clock
        self.permit: Permit | None = None

    def wait(self, seconds: float) -> bool:
        end = min(self._end, self._clock() + seconds)
        with self._scope.on_abort(self._ticket.wake):
            while self.permit is None and self._scope.reason is None and (left_s := end - self._clock()) > 0:
                self.permit = self._ticket.wait(left_s)
        self._scope.raise_if_aborted()
        return self.permit is not None or self._clock() >= self._end

    def notice(self) -> str:
        position, expected_s = self._ticket.estimate()
        return f"waiting for {' or '.join(self._ticket.wanted)}: position {position}, about {expected_s:.0f} s"


class FutureWait:
    """The wait for work on another thread. An abort needs no notice here: it aborts the calls that the work makes."""

    def __init__(self, future: Future[T], what: str) -> None:
        self._future = future
        self._what = what

    def wait(self, seconds: float) -> bool:
        wait_for([self._future], seconds)
        return self._future.done()

    def notice(self) -> str:
        return self._what


class WaitDriver(Generic[T]):
    """Runs a generator of waits, in one go or in parts."""

    def __init__(self, waiting: Waiting[T], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = waiting
        self._clock = clock
        self._wait: Wait | None = None
        self._result: list[T] = []

    def run_for(self, limit_s: float = float("inf")) -> bool:
        """Run for at most ``limit_s``; whether there is a ``result`` now. Raises what the generator raises."""
        end = self._clock() + limit_s
        while not self._result:
            try:
                if self._wait_once(min(max(0.0, end - self._clock()), _MAX_SINGLE_WAIT_S)):
                    self._wait = next(self._waiting)
                elif self._clock() >= end:
                    return False
            except StopIteration as stop:
                self._result.append(stop.value)
        return True

    def _wait_once(self, seconds: float) -> bool:
        """Wait for the present wait. An error of it is raised inside the generator, which releases what it holds."""
        if self._wait is None:
            return True
        try:
            return self._wait.wait(seconds)
        except RouterError as reason:
            self._wait = self._waiting.throw(reason)
            return False

    @property
    def result(self) -> T:
        """What the generator returned."""
        return self._result[0]

    def notice(self) -> str:
        """The notice of the present wait; empty if there is none."""
        return "" if self._wait is None else self._wait.notice()

    def close(self) -> None:
        """Close the generator, which releases tickets and permits."""
        self._waiting.close()


_MAX_SINGLE_WAIT_S = 3600.0
"""Locks cannot wait for an infinite time."""
