"""Speculation as a business: when it is worth its price, and what it came to."""

from __future__ import annotations

from ai_router.dispatch.primary_load import PrimaryLoad
from ai_router.dispatch.speculation_policy import Budget, Pressure, why_not
from ai_router.observability.metrics import RoutingMetrics
from ai_router.providers.catalogue import PRIMARY
from ai_router.resilience.limiter import ConcurrencyLimiter, Permit
from ai_router.routing.head.model import Guess
from ai_router.settings import SpeculationMode
from ai_router.types import Attempt, SpeculationResult


class SpeculationController:
    """Asks the policy and keeps the accounts; ``slots`` is how many requests the primary serves at once."""

    def __init__(
        self,
        mode: SpeculationMode,
        load: PrimaryLoad,
        limiter: ConcurrencyLimiter,
        budget: Budget,
        metrics: RoutingMetrics,
        *,
        slots: int,
    ) -> None:
        self._mode = mode
        self._limiter = limiter
        self._load = load
        self._budget = budget
        self._metrics = metrics
        self._slots = slots
        self.unless_begun = SpeculationResult.OFF if mode is SpeculationMode.OFF else SpeculationResult.SKIPPED
        """What to report for a request without a speculation."""

    def permit_for(self, guess: Guess | None) -> Permit | None:
        """A place at the primary for a call although the classifier may yet decide otherwise; None: better not."""
        self._load.want()
        pressure = Pressure(self._load.waiting, self._budget.left_s())
        why = why_not(self._mode, guess, pressure)
        permit = None
        if why is None:
            slots = None if self._mode is SpeculationMode.ALWAYS else self._slots
            permit = self._limiter.acquire([PRIMARY], below=slots)
            why = None if permit else "saturated"
        if why is not None:
            self._metrics.not_speculated(why)
        return permit

    def won(self, ahead_ms: float, attempt: Attempt) -> None:
        """The call is the answer; it began ``ahead_ms`` before it would have without speculation.

        What that saved is no more than the answer itself took: an answer that was there early waited for the decision.
        """
        until_answer_ms = attempt.duration_ms if attempt.ttft_ms is None else attempt.ttft_ms
        written_ms = max(ahead_ms - until_answer_ms, 0.0) if attempt.ttft_ms is not None else 0.0
        tokens = self._load.tokens_in(written_ms / 1000)
        self._metrics.speculated(SpeculationResult.HIT, min(ahead_ms, until_answer_ms), tokens)

    def lost(self, took_ms: float) -> None:
        """The call was given up, or failed, after so long."""
        self._budget.spend(took_ms / 1000)
        self._metrics.speculated(SpeculationResult.CANCELLED, took_ms, self._load.tokens_in(took_ms / 1000))
