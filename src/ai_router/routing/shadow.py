"""Asking the classifier about a sample of what the head has decided, behind the requests' back, one at a time."""

from __future__ import annotations

import logging
import random
import threading

from ai_router.errors import RouterError, ShuttingDown, UpstreamError
from ai_router.http.calls import CancelScope
from ai_router.observability.metrics import RoutingMetrics
from ai_router.observability.recorder import Batches
from ai_router.routing.classifier import Classifier
from ai_router.routing.head.guess import Guess
from ai_router.routing.monitor import Monitor
from ai_router.types import ChatRequest

log = logging.getLogger(__name__)

_WAITING = 32


class Shadow:
    """``share`` of the decisions it is offered, in [0, 1], is compared. A full queue drops: it is a sample anyway."""

    def __init__(
        self,
        classifier: Classifier,
        monitor: Monitor,
        metrics: RoutingMetrics,
        share: float,
        chance: random.Random | None = None,
    ) -> None:
        self._classifier = classifier
        self._monitor = monitor
        self._metrics = metrics
        self._share = share
        self._chance = chance or random.Random()  # noqa: S311 - a sample, not a secret
        self._scope = CancelScope()
        self._stopped = threading.Event()
        self._asks: Batches[tuple[ChatRequest, Guess]] = Batches(self._ask_all, name="shadow", limit=_WAITING)

    def start(self) -> None:
        """Begin."""
        self._asks.start()

    def close(self) -> None:
        """Give up what is under way and forget what waits."""
        self._stopped.set()
        self._scope.abort(ShuttingDown("the router is being stopped"))
        self._asks.close()

    def offer(self, request: ChatRequest, guess: Guess) -> None:
        """Take the decision into the sample, perhaps. Never waits."""
        if guess.sure and self._chance.random() < self._share:
            self._asks.put((request, guess))

    def _ask_all(self, asks: list[tuple[ChatRequest, Guess]]) -> None:
        for request, guess in asks:
            if not self._stopped.is_set():
                self._ask(request, guess)

    def _ask(self, request: ChatRequest, guess: Guess) -> None:
        scope = self._scope = CancelScope()
        if self._stopped.is_set():
            return
        try:
            verdict = self._classifier.classify(request, scope.new_call)
        except UpstreamError as problem:
            log.info("Shadow classification failed: %s", problem)
            return
        except RouterError:
            return  # the router is being stopped
        agreed = verdict.label == guess.label
        self._monitor.compare(agreed=agreed)
        self._metrics.shadowed(guess.label, agreed=agreed)
