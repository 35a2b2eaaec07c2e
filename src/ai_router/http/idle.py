"""How long a read may wait, without a timeout on the socket: with one, Python asks the kernel twice for each chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from ai_router.http.timers import TimerThread


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

    __slots__ = ("_clock", "_deadline", "_idle_s", "_on_idle", "_over", "_since", "_timers")

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
        self._over = False
        self._since: float | None = None
        self._deadline = timers.after(idle_s, self._look)

    def read_begins(self) -> None:
        self._since = self._clock()

    def read_ends(self) -> None:
        self._since = None

    def close(self) -> None:
        self._over = True
        self._deadline.cancel()

    def _look(self) -> None:
        """One alarm a while, not one a read: it finds out how long the read has taken that is under way."""
        since = self._since
        quiet_s = 0.0 if since is None else self._clock() - since
        if self._over:
            return
        if quiet_s >= self._idle_s:
            self._on_idle()
        else:
            self._deadline = self._timers.after(self._idle_s - quiet_s, self._look)
