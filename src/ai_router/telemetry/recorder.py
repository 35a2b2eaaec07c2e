"""What is done with an outcome that no request has to wait for: pricing it and handing it to everybody who counts."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from ai_router.exchange import Cost, Outcome
from ai_router.telemetry.batches import Batches

log = logging.getLogger(__name__)

_LIMIT = 20_000
"""Outcomes that wait; beyond that they are dropped, and counted."""


class Recorder:
    """A subscriber of outcomes with subscribers of its own, who are given each with its cost, on a thread of their own.

    ``on_dropped`` is called for each outcome that came when too many were waiting.
    """

    def __init__(
        self,
        price: Callable[[Outcome], Cost],
        subscribers: Sequence[Callable[[Outcome], None]],
        on_dropped: Callable[[], None],
    ) -> None:
        self._price = price
        self._subscribers = subscribers
        self._on_dropped = on_dropped
        self._batches = Batches(self._record_all, name="recorder", limit=_LIMIT)

    def start(self) -> None:
        """Begin to record."""
        self._batches.start()

    def take(self, outcome: Outcome) -> None:
        """Take an outcome; returns at once."""
        if not self._batches.put(outcome):
            self._on_dropped()

    def settle(self) -> None:
        """Record what is waiting now: whoever reads what the subscribers know sees what has ended before."""
        self._batches.settle()

    def close(self) -> None:
        """Record what is waiting, then stop."""
        self._batches.close()

    def _record_all(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            priced = dataclasses.replace(outcome, cost=self._price(outcome))
            for subscriber in self._subscribers:
                try:
                    subscriber(priced)
                except Exception:  # the border of a background thread: who fails must not keep it from the others
                    log.exception("an outcome could not be recorded")
