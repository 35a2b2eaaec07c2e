"""What is done with an outcome that no request has to wait for: pricing it and handing it to everybody who counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ai_router.observability.batches import Batches
from ai_router.types import Cost, Outcome

log = logging.getLogger(__name__)

_QUEUE_LIMIT = 20_000
"""Outcomes that wait; beyond that they are dropped, and counted."""


Sink = Callable[[Outcome, Cost], None]
"""Keeps, or counts, an outcome and what it cost."""

_GATHER_S = 0.1
"""Who reads what the keepers know has it settled first."""


class Recorder:
    """A subscriber of outcomes that has their cost worked out and hands both to keepers, on a thread of its own.

    ``on_dropped`` is called for each outcome that came when too many were waiting.
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
        """Begin to record."""
        self._batches.start()

    def take(self, outcome: Outcome) -> None:
        """Take an outcome; returns at once."""
        if not self._batches.put(outcome):
            self._on_dropped()

    def flush(self) -> None:
        """Record what is waiting now: whoever reads what the keepers know sees what has ended before."""
        self._batches.flush()

    def close(self) -> None:
        """Record what is waiting, then stop."""
        for _ in self._batches.close():
            self._on_dropped()

    def _record_all(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            cost = self._cost(outcome)
            for sink in self._sinks:
                try:
                    sink(outcome, cost)
                except Exception:  # the border of a background thread: who fails must not keep it from the others
                    log.exception("an outcome could not be recorded")

    def _cost(self, outcome: Outcome) -> Cost:
        try:
            return self._price(outcome)
        except Exception:  # as above: a request without a price is one of unknown cost, not one that never was
            log.exception("a request could not be priced")
            return Cost(0.0, (), unknown=("its price could not be worked out",))
