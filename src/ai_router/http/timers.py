"""Timers on one thread, for the deadlines of all upstream calls.

A socket timeout starts anew with every byte, so that keep-alive comments would put it off. A threading.Timer needs a
thread for each call. This is a heap, a lock and one thread that sleeps most of the time. Nearly all deadlines are
cancelled; setting one wakes the thread only if it is the earliest.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)


class Deadline:
    """A callback at a set time, ``at`` in seconds of the timers' clock. Made by ``TimerThread.after``."""

    __slots__ = ("_callback", "at")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self._callback: Callable[[], None] | None = callback

    def __lt__(self, other: Deadline) -> bool:
        return self.at < other.at

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled, or has fired."""
        return self._callback is None

    def cancel(self) -> None:
        """Drop the callback, and with it all that it refers to. Idempotent. A callback that is running goes on."""
        self._callback = None

    def fire(self) -> None:
        """Call the callback, unless it was cancelled or has been called."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class TimerThread:
    """The timers of a process. Callbacks run on its thread, one after the other, and must be short."""

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
        """Call ``callback`` in ``seconds``, on the timers' thread. Safe from any thread."""
        deadline = Deadline(self._clock() + seconds, callback)
        with self._lock:
            heapq.heappush(self._heap, deadline)
            if self._heap[0] is deadline:
                self._changed.notify()
            if len(self._heap) >= self._sweep_at:
                self._sweep()
        return deadline

    def close(self) -> None:
        """Stop the thread. Callbacks that are not due yet are never called."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _sweep(self) -> None:
        """Remove cancelled deadlines, which would otherwise stay in the heap until their time."""
        self._heap = [deadline for deadline in self._heap if not deadline.cancelled]
        heapq.heapify(self._heap)
        self._sweep_at = max(self._SWEEP_AT, 2 * len(self._heap))

    def _run(self) -> None:
        while (deadline := self._next_due()) is not None:
            try:
                deadline.fire()
            except Exception:  # on a background thread: one bad callback must not end all deadlines
                log.exception("a timer's callback failed")

    def _next_due(self) -> Deadline | None:
        """Wait until a deadline is due; None when closed.

        Cancelled ones stay in the heap until their time. If they were removed at once, nearly every new deadline would
        be the earliest and would wake this thread.
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
    """Notified when a read of a backend's socket begins and ends."""

    def read_begins(self) -> None:
        """A read begins: the time until it ends counts."""

    def read_ends(self) -> None:
        """The read has ended."""

    def close(self) -> None:
        """The call has ended: there are no more reads."""


class NoWatch:
    """Does nothing: for a call whose total deadline is no later than its idle deadline."""

    def read_begins(self) -> None: ...
    def read_ends(self) -> None: ...
    def close(self) -> None: ...


class IdleWatch:
    """Calls ``on_idle`` when a single read has taken ``idle_s`` seconds. The time between two reads does not count."""

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
        """How long has the present read taken? Checked now and then, since a timer for each read would cost more."""
        read_began_at = self._read_began_at
        silent_s = 0.0 if read_began_at is None else self._clock() - read_began_at
        if self._closed:
            return
        if silent_s >= self._idle_s:
            self._on_idle()
        else:
            self._deadline = self._timers.after(self._idle_s - silent_s, self._check)


@dataclass(frozen=True, slots=True)
class CallDeadlines:
    """The deadlines of one call: for the first byte (None: no such), for all of it, and for each read."""

    first_byte: Deadline | None
    total: Deadline
    idle: Watch

    def first_byte_seen(self) -> None:
        """Cancel the first-byte deadline."""
        if self.first_byte is not None:
            self.first_byte.cancel()

    def close(self) -> None:
        """Cancel all deadlines. Idempotent."""
        self.first_byte_seen()
        self.total.cancel()
        self.idle.close()
