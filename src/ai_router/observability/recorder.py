"""Work for background threads: batches of it, and the recorder that hands finished requests to all that keep them.

No request waits for a session file, a usage row, a span or the metrics of its outcome: they are made on threads of
their own.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from ai_router.types import Cost, Outcome

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_IDLE_S = 1.0
"""How long after the start work that is due by time is done: soon, but not while everything else starts."""

GATHER_S = 0.02
"""How long a batch gathers items after its first one, in seconds, unless somebody calls ``flush``."""
_PAUSE_S = 0.002
"""Between two portions."""


class Batches(Generic[T]):
    """A queue, and a thread that calls ``handle`` with lists of the items that wait, in their order.

    ``handle`` runs on that thread only; what it raises is logged, and the batch is gone. ``name`` is the thread's.
    ``limit``: how many items may wait; None: any number. ``idle_s``: after so many seconds without an item, ``handle``
    is called with an empty list, so that it can do what is due by time; None: never. ``gather_s``: how long items are
    gathered after the first of a batch, in seconds. ``portion``: how many items are handled in one go, about a
    millisecond's work: all that time no request may have the interpreter. None: all that wait.
    """

    def __init__(
        self,
        handle: Callable[[list[T]], None],
        *,
        name: str,
        limit: int | None = None,
        idle_s: float | None = None,
        gather_s: float = GATHER_S,
        portion: int | None = None,
    ) -> None:
        self._gather_s = gather_s
        self._portion = portion
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
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> bool:
        """Queue an item; False if ``limit`` items wait already. Never blocks."""
        if self._limit is not None and len(self._items) >= self._limit:
            return False
        self._items.append(item)
        if not self._has_work.is_set():
            self._has_work.set()
        return True

    def wake(self) -> None:
        """Have the thread call ``handle`` now, with what waits or with an empty list. Does not wait until it has."""
        self._now.set()
        self._has_work.set()

    def flush(self, timeout_s: float = 1.0) -> None:
        """Have the thread handle now what waits, and return when it has, or after ``timeout_s`` seconds if ``handle``
        takes longer. To be called before what ``handle`` writes is read."""
        with self._progress:
            target = self._taken + len(self._items)
            if self._handled >= target or not self._thread.is_alive():
                return
            self.wake()
            self._progress.wait_for(lambda: self._handled >= target, timeout_s)

    @property
    def waiting(self) -> int:
        """How many items the thread has not taken yet."""
        return len(self._items)

    @property
    def stuck(self) -> bool:
        """Whether the thread still runs after ``close``: its ``handle`` hangs."""
        return self._closing.is_set() and self._thread.is_alive()

    def close(self, timeout_s: float = 10.0) -> list[T]:
        """Handle what waits, then end the thread. Returns the items that were not handled because ``handle`` did not
        return within ``timeout_s`` seconds; usually none."""
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return [self._items.popleft() for _ in range(len(self._items))]

    def _run(self) -> None:
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
        for portion in self._portions(items) if items or self._idle_s is not None else ():
            try:
                self._handle(portion)
            except Exception:  # at the edge of a background thread: one bad batch must not end it
                log.exception("a batch could not be handled")
        with self._progress:
            self._handled = self._taken
            self._progress.notify_all()

    def _portions(self, items: list[T]) -> Iterator[list[T]]:
        """The items in portions, with pauses in which requests have the interpreter; none once somebody waits for the
        end."""
        size = self._portion or max(1, len(items))
        # All pauses together are no longer than the next items are gathered, however many wait.
        pause_s = min(_PAUSE_S, self._gather_s * size / max(1, len(items)))
        yield items[:size]
        for begin in range(size, len(items), size):
            self._now.wait(pause_s)
            yield items[begin : begin + size]


_QUEUE_LIMIT = 20_000
"""Outcomes that wait; beyond that they are dropped, and counted."""


Sink = Callable[[Outcome, Cost], None]
"""Keeps or counts an outcome and its cost; called on the recorder's thread."""

_GATHER_S = 0.1
"""Long, since whatever reads what the sinks have calls ``flush`` first."""
_PORTION = 8
"""Outcomes; each takes 0.15 ms."""


class Recorder:
    """Works out the cost of each outcome with ``price`` and calls every sink with both, on a thread of its own.

    A sink that raises is logged and does not keep an outcome from the others. ``on_dropped`` is called for each outcome
    that was lost because too many were waiting.
    """

    def __init__(
        self,
        price: Callable[[Outcome], Cost],
        sinks: Sequence[Sink],
        on_dropped: Callable[[], None],
    ) -> None:
        self._price = price
        self._sinks = sinks
        self._on_dropped = on_dropped
        self._batches = Batches(
            self._record_all, name="recorder", limit=_QUEUE_LIMIT, gather_s=_GATHER_S, portion=_PORTION
        )

    def start(self) -> None:
        """Start the thread."""
        self._batches.start()

    def take(self, outcome: Outcome) -> None:
        """Queue an outcome; returns at once. A subscriber of outcomes."""
        if not self._batches.put(outcome):
            self._on_dropped()

    def flush(self) -> None:
        """Record what waits now. To be called before what the sinks keep is read: then it has all that has ended."""
        self._batches.flush()

    def close(self) -> None:
        """Record what waits, then stop."""
        for _ in self._batches.close():
            self._on_dropped()

    def _record_all(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            cost = self._cost(outcome)
            for sink in self._sinks:
                try:
                    sink(outcome, cost)
                except Exception:  # at the edge of a background thread: one sink's fault must not cost the others
                    log.exception("an outcome could not be recorded")

    def _cost(self, outcome: Outcome) -> Cost:
        try:
            return self._price(outcome)
        except Exception:  # as above: without a price the request still counts, with an unknown cost
            log.exception("a request could not be priced")
            return Cost(0.0, (), unknown=("its price could not be worked out",))
