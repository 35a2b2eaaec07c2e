"""Handing work to a background thread without waking it for every item."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_IDLE_S = 1.0

GATHER_S = 0.02
"""How long a batch gathers after its first item. Nobody waits for it."""


class Batches(Generic[T]):
    """A bounded queue and a thread that takes all there is at once.

    ``idle_s``: without work for so long, the thread calls ``handle`` with nothing, for what is due by time.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], None],
        *,
        name: str,
        limit: int | None = None,
        idle_s: float | None = None,
        gather_s: float = GATHER_S,
    ) -> None:
        self._gather_s = gather_s
        self._handle = handle
        self._limit = limit
        self._idle_s = idle_s
        self._items: deque[T] = deque()
        self._has_work = threading.Event()
        self._now = threading.Event()
        self._closing = threading.Event()
        self._progress = threading.Condition()
        self._handled = 0
        self._taken = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to handle."""
        self._thread.start()

    def put(self, item: T) -> bool:
        """Take an item; False if there are too many already. Never waits."""
        if self._limit is not None and len(self._items) >= self._limit:
            return False
        self._items.append(item)
        if not self._has_work.is_set():
            self._has_work.set()
        return True

    def wake(self) -> None:
        """Have the thread handle what is there, and what is due by time, now. Does not wait for it."""
        self._now.set()
        self._has_work.set()

    def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until the thread has handled what is there now, which it does at once; with a handler that hangs, no
        longer than ``timeout_s``. For whoever is about to read what came of it."""
        with self._progress:
            target = self._taken + len(self._items)
            if self._handled >= target or not self._thread.is_alive():
                return
            self.wake()
            self._progress.wait_for(lambda: self._handled >= target, timeout_s)

    @property
    def waiting(self) -> int:
        """How many items have not been taken."""
        return len(self._items)

    @property
    def stuck(self) -> bool:
        """Whether the thread goes on although it was told to end."""
        return self._closing.is_set() and self._thread.is_alive()

    def close(self, timeout_s: float = 10.0) -> list[T]:
        """Handle what is there, then end the thread. With a handler that is stuck, what was not handled."""
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return [self._items.popleft() for _ in range(len(self._items))]

    def _run(self) -> None:
        # What is due by time is due soon after the start, but not in the moment in which everything starts.
        idle_s = None if self._idle_s is None else min(self._idle_s, _FIRST_IDLE_S)
        while not self._closing.is_set():
            if self._has_work.wait(idle_s):
                self._now.wait(self._gather_s)
            idle_s = self._idle_s
            self._now.clear()
            self._has_work.clear()
            self._handle_waiting()
        self._handle_waiting()

    def _handle_waiting(self) -> None:
        with self._progress:
            items = [self._items.popleft() for _ in range(len(self._items))]
            self._taken += len(items)
        try:
            if items or self._idle_s is not None:
                self._handle(items)
        except Exception:  # the border of a background thread: one bad item must not end it for all others
            log.exception("a batch could not be handled")
        with self._progress:
            self._handled = self._taken
            self._progress.notify_all()
