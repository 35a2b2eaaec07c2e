"""Hands finished requests to all that count or keep them: session files, metrics, usage rows, spans. Off the requests'
threads, so that none waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ai_router.observability.batches import Batches
from ai_router.types import Cost, Outcome

log = logging.getLogger(__name__)

_QUEUE_LIMIT = 20_000
"""Outcomes that wait; beyond that they are dropped, and counted."""


Sink = Callable[[Outcome, Cost], None]
"""Keeps or counts an outcome and its cost; called on the recorder's thread."""

_GATHER_S = 0.1
"""Long, since whatever reads what the sinks have calls ``flush`` first."""


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
        self._batches = Batches(self._record_all, name="recorder", limit=_QUEUE_LIMIT, gather_s=_GATHER_S)

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
