"""Judging a sample of the answers while the router runs, on a thread of its own, one at a time."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence

from ai_router.errors import ShuttingDown, StoreUnavailable
from ai_router.judging.cases import Case, case_of
from ai_router.judging.comparer import BudgetUsedUp, Comparer, NotJudged
from ai_router.observability.metrics import JudgeMetrics
from ai_router.observability.recorder import Batches
from ai_router.types import Outcome

log = logging.getLogger(__name__)

_QUEUE_LIMIT = 8
"""Answers that wait; when there are more, further ones are not judged. A sample is as good without them."""


class JudgeSampler:
    """``share``, in [0, 1], of the answers that can be judged are. ``is_private``: whether a text must not leave: an
    answer may have something private in it that its request has not."""

    def __init__(
        self,
        comparer: Comparer,
        metrics: JudgeMetrics,
        share: float,
        is_private: Callable[[str], bool],
        rng: random.Random | None = None,
    ) -> None:
        self._is_private = is_private
        self._comparer = comparer
        self._metrics = metrics
        self._share = share
        self._rng = rng or random.Random()  # noqa: S311 - a sample, not a secret
        self._stopped = threading.Event()
        self._told = ""
        """Why the last answer was not judged; empty: it was."""
        self._queue: Batches[Outcome] = Batches(self._judge_all, name="judge", limit=_QUEUE_LIMIT)

    def start(self) -> None:
        """Start the thread."""
        self._queue.start()

    def close(self) -> None:
        """Abort the call under way and drop what waits."""
        self._stopped.set()
        self._comparer.abort(ShuttingDown("the router is being stopped"))
        self._queue.close()

    def finished(self, outcome: Outcome) -> None:
        """Perhaps take a request's answer into the sample. A subscriber of outcomes; never waits."""
        if not outcome.request.local_only and self._rng.random() < self._share:
            self._queue.put(outcome)

    def _judge_all(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if self._stopped.is_set():
                return
            case = case_of(outcome, self._comparer.is_local)
            if case is not None and self._comparer.takes(case) and not self._is_private(case.answer):
                self._judge_one(case)

    def _judge_one(self, case: Case) -> None:
        try:
            result = self._comparer.compare(case)
        except (NotJudged, StoreUnavailable) as problem:
            why = type(problem).__name__ if isinstance(problem, BudgetUsedUp) else str(problem)
            if why != self._told:
                log.warning("Local answers are not judged: %s", problem)
            self._told = why
            return
        self._told = ""
        self._metrics.judged(case.route, result.winner, result.usd)
        if result.problem is not None:
            log.info("An answer could not be judged: %s", result.problem)
