"""One thread that calls back at set times: the deadlines of every upstream call.

A socket timeout starts anew with every byte, keep-alives included; a deadline must not. A threading.Timer would be
a thread per call. This is a heap, a lock and one thread that mostly sleeps: deadlines are nearly always
cancelled, and setting one wakes the thread only if it is the earliest.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


class Deadline:
    """A callback to come. ``cancel`` is idempotent; a callback already running is not stopped."""

    __slots__ = ("_callback", "at")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self._callback: Callable[[], None] | None = callback

    def __lt__(self, other: Deadline) -> bool:
        return self.at < other.at

    @property
    def cancelled(self) -> bool:
        """Whether there is nothing left to call."""
        return self._callback is None

    def cancel(self) -> None:
        """Forget the callback, and all it refers to."""
        self._callback = None

    def fire(self) -> None:
        """Call back, once."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class TimerThread:
    """The clock of all timers of a process. Callbacks must be short: they share its thread."""

    _SWEEP_AT = 1024

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[Deadline] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._sweep_at = self._SWEEP_AT
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
        self._thread.start()

    def after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Call back in ``seconds``, on the timers' thread."""
        deadline = Deadline(self._clock() + seconds, callback)
        with self._lock:
            heapq.heappush(self._heap, deadline)
            if self._heap[0] is deadline:
                self._changed.notify()
            if len(self._heap) >= self._sweep_at:
                self._sweep()
        return deadline

    def close(self) -> None:
        """Stop the thread; what has not rung never will."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _sweep(self) -> None:
        """Drop the cancelled, so that a busy minute does not keep a minute's worth of dead timers."""
        self._heap = [deadline for deadline in self._heap if not deadline.cancelled]
        heapq.heapify(self._heap)
        self._sweep_at = max(self._SWEEP_AT, 2 * len(self._heap))

    def _run(self) -> None:
        while (deadline := self._next_due()) is not None:
            try:
                deadline.fire()
            except Exception:  # the border of a background thread: one bad callback must not end all deadlines
                log.exception("a timer's callback failed")

    def _next_due(self) -> Deadline | None:
        """Wait for a timer to fall due; None when closed.

        The cancelled are waited for like the others: without them at the top each request's first alarm would be the
        earliest of all, and wake this thread.
        """
        with self._changed:
            while not self._closed:
                wait_s = self._heap[0].at - self._clock() if self._heap else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                elif not (deadline := heapq.heappop(self._heap)).cancelled:
                    return deadline
        return None


class Watch(Protocol):
    """What is told when somebody waits for a backend."""

    def read_begins(self) -> None:
        """From here on somebody waits."""

    def read_ends(self) -> None:
        """Nobody waits any more."""

    def close(self) -> None:
        """There will be no more reads."""


class NoWatch:
    """For a call whose other deadlines are no later."""

    def read_begins(self) -> None: ...
    def read_ends(self) -> None: ...
    def close(self) -> None: ...


class IdleWatch:
    """Calls ``on_idle`` when one read has taken ``idle_s``. The time between two reads is not the backend's."""

    __slots__ = ("_clock", "_closed", "_deadline", "_idle_s", "_on_idle", "_read_began_at", "_timers")

    def __init__(
        self,
        timers: TimerThread,
        idle_s: float,
        on_idle: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timers = timers
        self._idle_s = idle_s
        self._on_idle = on_idle
        self._clock = clock
        self._closed = False
        self._read_began_at: float | None = None
        self._deadline = timers.after(idle_s, self._check)

    def read_begins(self) -> None:
        self._read_began_at = self._clock()

    def read_ends(self) -> None:
        self._read_began_at = None

    def close(self) -> None:
        self._closed = True
        self._deadline.cancel()

    def _check(self) -> None:
        """One alarm a while, not one a read: it finds out how long the read has taken that is under way."""
        read_began_at = self._read_began_at
        silent_s = 0.0 if read_began_at is None else self._clock() - read_began_at
        if self._closed:
            return
        if silent_s >= self._idle_s:
            self._on_idle()
        else:
            self._deadline = self._timers.after(self._idle_s - silent_s, self._check)
