"""Watching the head: how often the classifier agrees with it, how its confidence drifts, whether it may decide.

A comparison is a request of which the head was sure, and about which the classifier was asked too. ShadowClassifier
asks about a sample of the head's own decisions; while the head is out of service, the classifier decides everything.

The head leaves service when, with 95% certainty, its disagreement over the last WINDOW comparisons is above ``limit``.
Its comparisons are then counted anew, and it comes back when there are RETURN_AFTER of them and the disagreement is
within the limit, or when another head is loaded.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ai_router.errors import RouterError, ShuttingDown, UpstreamError
from ai_router.http.calls import CancelScope
from ai_router.observability.metrics import RoutingMetrics
from ai_router.observability.recorder import Batches
from ai_router.routing.classifier import Classifier
from ai_router.routing.head.confidence import CONFIDENCE_BINS
from ai_router.routing.head.model import Guess
from ai_router.routing.verdict import LABELS
from ai_router.types import ChatRequest

log = logging.getLogger(__name__)

WINDOW = 200
RETURN_AFTER = 100
_MIN_COMPARISONS = 20
_QUEUE_LIMIT = 32
_Z_95 = 1.645  # one-sided 95%


@dataclass(frozen=True, slots=True)
class Agreement:
    """``compared`` recent cases in which the head was sure, and in how many the classifier said the same."""

    compared: int
    agreed: int

    @property
    def share(self) -> float | None:
        """The share of comparisons that agreed, in [0, 1]; None before the first."""
        return self.agreed / self.compared if self.compared else None

    @property
    def disagreement(self) -> float:
        """The share of comparisons in which the classifier said something else; 0 before the first."""
        return 1 - self.agreed / self.compared if self.compared else 0.0

    def disagreement_lower_bound(self) -> float:
        """The true disagreement is above this with 95% certainty (lower bound of the Wilson score interval)."""
        if not self.compared:
            return 0.0
        n, p = self.compared, self.disagreement
        centre = p + _Z_95**2 / (2 * n)
        spread = _Z_95 * math.sqrt(p * (1 - p) / n + _Z_95**2 / (4 * n**2))
        return (centre - spread) / (1 + _Z_95**2 / n)


class Monitor:
    """Keeps comparisons and confidences, and decides whether the head is in service. Safe from any thread.

    ``limit`` is the disagreement that is allowed, in [0, 1]; ``reference`` the share of each of CONFIDENCE_BINS bins in
    the head's confidences at calibration.
    """

    def __init__(self, limit: float, reference: Sequence[float] = ()) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._confidences: deque[int] = deque(maxlen=5 * WINDOW)
        self._reference = tuple(reference)
        self._in_service = True

    @property
    def in_service(self) -> bool:
        """Whether the head may decide."""
        return self._in_service

    def agreement(self) -> Agreement:
        """The agreement of the last WINDOW comparisons."""
        with self._lock:
            return Agreement(len(self._recent), sum(self._recent))

    def record_comparison(self, *, agreed: bool) -> None:
        """Count a comparison: the head was sure, and the classifier said the same or not."""
        with self._lock:
            self._recent.append(agreed)
            recent = Agreement(len(self._recent), sum(self._recent))
            bound = recent.disagreement_lower_bound()
            leaves = self._in_service and recent.compared >= _MIN_COMPARISONS and bound > self._limit
            within_limit = recent.disagreement <= self._limit
            returns = not self._in_service and recent.compared >= RETURN_AFTER and within_limit
            if not (leaves or returns):
                return
            self._in_service = returns
            if leaves:
                self._recent.clear()
        disagreement = 100 * recent.disagreement
        if leaves:
            log.warning(
                "Fast path out of service: it disagreed with the classifier in %.1f%% of %d comparisons (limit %.1f%%)",
                disagreement,
                recent.compared,
                100 * self._limit,
            )
        else:
            log.info(
                "Fast path back in service: it disagreed in %.1f%% of %d comparisons", disagreement, recent.compared
            )

    def record_confidence(self, confidence: float) -> None:
        """Count the confidence, in [0, 1], of a guess; for ``drift``."""
        self._confidences.append(min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1))

    def drift(self) -> float | None:
        """How far recent confidences are from the reference: the population stability index.

        0 is alike; above 0.25, by convention, is another kind of traffic than the head was calibrated for. None without
        a reference or before WINDOW guesses.
        """
        bins = tuple(self._confidences)
        if len(bins) < WINDOW or not self._reference:
            return None
        floor = 1e-3
        actual = [max(bins.count(index) / len(bins), floor) for index in range(CONFIDENCE_BINS)]
        expected = [max(share, floor) for share in self._reference]
        return sum((a - e) * math.log(a / e) for a, e in zip(actual, expected, strict=True))

    def reset(self, reference: Sequence[float]) -> None:
        """Begin anew, in service: another head was loaded, with this reference."""
        with self._lock:
            self._recent.clear()
            self._confidences.clear()
            self._reference = tuple(reference)
            self._in_service = True


class ShadowClassifier:
    """Asks the classifier about a sample of the head's decisions, on a thread of its own, one at a time.

    ``share``, in [0, 1], of the decisions offered is asked about. When _QUEUE_LIMIT wait, further ones are dropped.
    """

    def __init__(
        self,
        classifier: Classifier,
        monitor: Monitor,
        metrics: RoutingMetrics,
        share: float,
        rng: random.Random | None = None,
    ) -> None:
        self._classifier = classifier
        self._monitor = monitor
        self._metrics = metrics
        self._share = share
        self._rng = rng or random.Random()  # noqa: S311 - a sample, not a secret
        self._scope = CancelScope()
        self._stopped = threading.Event()
        self._queue: Batches[tuple[ChatRequest, Guess]] = Batches(self._ask_all, name="shadow", limit=_QUEUE_LIMIT)

    def start(self) -> None:
        """Start the thread."""
        self._queue.start()

    def close(self) -> None:
        """Abort the call under way and drop what waits."""
        self._stopped.set()
        self._scope.abort(ShuttingDown("the router is being stopped"))
        self._queue.close()

    def offer(self, request: ChatRequest, guess: Guess) -> None:
        """Perhaps take a decision of the head's into the sample. Never waits."""
        if guess.sure and self._rng.random() < self._share:
            self._queue.put((request, guess))

    def _ask_all(self, questions: list[tuple[ChatRequest, Guess]]) -> None:
        for request, guess in questions:
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
        if verdict.label not in LABELS:
            return  # an owner's route, of which the head does not know in the same way
        agreed = verdict.label == guess.label
        self._monitor.record_comparison(agreed=agreed)
        self._metrics.shadowed(guess.label, agreed=agreed)
