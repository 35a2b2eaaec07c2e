"""Handing work to a background thread without waking it for every piece."""

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
"""How long a batch gathers after its first piece. Nobody waits for it."""


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
        self._pieces: deque[T] = deque()
        self._waiting = threading.Event()
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._progress = threading.Condition()
        self._handled = 0
        self._taken = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to handle."""
        self._thread.start()

    def put(self, piece: T) -> bool:
        """Take a piece; False if there are too many already. Never waits."""
        if self._limit is not None and len(self._pieces) >= self._limit:
            return False
        self._pieces.append(piece)
        if not self._waiting.is_set():
            self._waiting.set()
        return True

    def hurry(self) -> None:
        """Have the thread handle what is there, and what is due by time, now. Does not wait for it."""
        self._hurry.set()
        self._waiting.set()

    def flush(self, patience_s: float = 1.0) -> None:
        """Wait until the thread has handled what is there now, which it does at once; with a handler that hangs, no
        longer than ``patience_s``. For whoever is about to read what came of it."""
        with self._progress:
            wanted = self._taken + len(self._pieces)
            if self._handled >= wanted or not self._thread.is_alive():
                return
            self.hurry()
            self._progress.wait_for(lambda: self._handled >= wanted, patience_s)

    @property
    def waiting(self) -> int:
        """How many pieces have not been taken."""
        return len(self._pieces)

    @property
    def stuck(self) -> bool:
        """Whether the thread goes on although it was told to end."""
        return self._closing.is_set() and self._thread.is_alive()

    def close(self, patience_s: float = 10.0) -> list[T]:
        """Handle what is there, then end the thread. With a handler that is stuck, what was not handled."""
        self._closing.set()
        self.hurry()
        if self._thread.is_alive():
            self._thread.join(patience_s)
        return [self._pieces.popleft() for _ in range(len(self._pieces))]

    def _run(self) -> None:
        # What is due by time is due soon after the start, but not in the moment in which everything starts.
        idle_s = None if self._idle_s is None else min(self._idle_s, _FIRST_IDLE_S)
        while not self._closing.is_set():
            if self._waiting.wait(idle_s):
                self._hurry.wait(self._gather_s)
            idle_s = self._idle_s
            self._hurry.clear()
            self._waiting.clear()
            self._handle_all()
        self._handle_all()

    def _handle_all(self) -> None:
        with self._progress:
            pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
            self._taken += len(pieces)
        try:
            if pieces or self._idle_s is not None:
                self._handle(pieces)
        except Exception:  # the border of a background thread: one bad piece must not end it for all others
            log.exception("a batch could not be handled")
        with self._progress:
            self._handled = self._taken
            self._progress.notify_all()
