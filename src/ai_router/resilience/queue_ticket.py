"""A place in the queue for a permit."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

P = TypeVar("P")


class QueueFull(Exception):
    """The queue has reached its size; raised by ``ConcurrencyLimiter.queue``."""


class Queue(Protocol):
    """What a ticket needs of the queue that it is in."""

    def admit_waiting(self) -> None: ...
    def admits_in(self, wanted: Iterable[str]) -> float: ...
    def remove(self, ticket: Any) -> None: ...
    def estimate(self, ticket: Any) -> tuple[int, float]: ...


class Ticket(Generic[P]):
    """One request in the queue, for a permit of one of the backends ``wanted``, best first. Release it in any case."""

    def __init__(self, limiter: Queue, wanted: Sequence[str], round_number: int) -> None:
        self._limiter = limiter
        self.wanted = tuple(wanted)
        self.round_number = round_number
        """Lower rounds are served first. Each waiting request of a client is one round after the one before it."""
        self.woken = threading.Event()
        self.permit: P | None = None

    def wait(self, seconds: float) -> P | None:
        """Wait for the permit, at most ``seconds``. None: not yet. It also returns early, so call it in a loop."""
        self._limiter.admit_waiting()
        if self.permit is None:
            self.woken.wait(min(seconds, self._limiter.admits_in(self.wanted)))
            self.woken.clear()
            self._limiter.admit_waiting()
        return self.permit

    def wake(self) -> None:
        """End the present ``wait`` early. Safe from any thread."""
        self.woken.set()

    def release(self) -> None:
        """Leave the queue. A permit that was granted but not used is released."""
        self._limiter.remove(self)

    def estimate(self) -> tuple[int, float]:
        """The position in the queue, from 1, and about how many seconds the wait will take."""
        return self._limiter.estimate(self)
