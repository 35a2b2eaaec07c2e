"""Waiting as a value: an answer on its way is a generator of waits, and whoever drives it decides how to spend them.

A plain request just waits. A stream sends its headers after a moment and a comment every few seconds, and goes on with
the same generator where it stood. No wait outlasts the request: an abort of its scope ends it.
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
    """Something that takes its time."""

    def wait(self, seconds: float) -> bool:
        """Wait for it, at most so long; whether it is over. Raises what the request was aborted for."""

    def notice(self) -> str:
        """What to tell a client meanwhile, in a few words."""


Waiting = Generator[Wait, None, T]


class TimedWait:
    """Nothing but time, before a call is made again."""

    def __init__(self, scope: CancelScope, seconds: float, what: str, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._what = what
        self._clock = clock
        self._end = clock() + seconds

    def wait(self, seconds: float) -> bool:
        woken = threading.Event()
        with self._scope.waking(woken.set):
            woken.wait(max(0.0, min(seconds, self._end - self._clock())))
        self._scope.raise_if_aborted()
        return self._clock() >= self._end

    def notice(self) -> str:
        return f"{self._what}, trying again in {max(0.0, self._end - self._clock()):.0f} s"


class QueueWait:
    """A place in the queue, until ``end``."""

    def __init__(self, scope: CancelScope, ticket: QueueTicket, end: float, clock: Callable[[], float]) -> None:
        self._scope = scope
        self._ticket = ticket
        self._end = end
        self._clock = clock
        self.granted: Permit | None = None

    def wait(self, seconds: float) -> bool:
        end = min(self._end, self._clock() + seconds)
        with self._scope.waking(self._ticket.wake):
            while self.granted is None and self._scope.reason is None and (left := end - self._clock()) > 0:
                self.granted = self._ticket.wait(left)
        self._scope.raise_if_aborted()
        return self.granted is not None or self._clock() >= self._end

    def notice(self) -> str:
        position, expected_s = self._ticket.estimate()
        return f"waiting for {' or '.join(self._ticket.wanted)}: position {position}, about {expected_s:.0f} s"


class FutureWait:
    """Work under way on another thread, which ends by itself when the request's calls are aborted."""

    def __init__(self, work: Future[T], what: str) -> None:
        self._work = work
        self._what = what

    def wait(self, seconds: float) -> bool:
        wait_for([self._work], seconds)
        return self._work.done()

    def notice(self) -> str:
        return self._what


class WaitDriver(Generic[T]):
    """Steps under way."""

    def __init__(self, waiting: Waiting[T], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = waiting
        self._clock = clock
        self._wait: Wait | None = None
        self._result: list[T] = []

    def run_for(self, patience_s: float = float("inf")) -> bool:
        """Go on until the end, or until so much time has passed; whether it is the end. Raises what a step raises."""
        end = self._clock() + patience_s
        while not self._result:
            try:
                if self._waited(min(max(0.0, end - self._clock()), _LONG_S)):
                    self._wait = next(self._waiting)
                elif self._clock() >= end:
                    return False
            except StopIteration as stop:
                self._result.append(stop.value)
        return True

    def _waited(self, seconds: float) -> bool:
        """Wait for what the steps wait for. What ends the wait is raised where they stand, so that they let go."""
        if self._wait is None:
            return True
        try:
            return self._wait.wait(seconds)
        except RouterError as reason:
            self._wait = self._waiting.throw(reason)
            return False

    @property
    def result(self) -> T:
        """What the steps came to."""
        return self._result[0]

    def notice(self) -> str:
        """What it waits for."""
        return "" if self._wait is None else self._wait.notice()

    def close(self) -> None:
        """Go no further; what the steps hold is let go."""
        self._waiting.close()


_LONG_S = 3600.0
"""Locks do not wait for infinity."""
