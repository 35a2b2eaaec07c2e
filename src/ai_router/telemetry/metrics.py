"""Prometheus metrics of deciding and speculating, in a registry of their own: there is no global one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ai_router.exchange import DecidedBy, Label, Outcome, SpeculationResult

_FAST_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1)
_CLASSIFIER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_SHARES = tuple(step / 20 for step in range(1, 20))


class RoutingMetrics:
    """What deciding and speculating came to. Label values are from enums, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._decisions = Counter("ai_router_decisions", "Decisions", ["decided_by", "label"], registry=registry)
        self._head_seconds = Histogram(
            "ai_router_head_seconds", "Time the head took", buckets=_FAST_BUCKETS, registry=registry
        )
        self._head_confidence = Histogram(
            "ai_router_head_confidence", "Confidence of the head", buckets=_SHARES, registry=registry
        )
        self._classifier_seconds = Histogram(
            "ai_router_classifier_seconds", "Time a classification took", buckets=_CLASSIFIER_BUCKETS, registry=registry
        )
        self._shadow = Counter(
            "ai_router_shadow",
            "Decisions of the head that the classifier was asked about",
            ["label", "agreed"],
            registry=registry,
        )
        self._speculations = Counter(
            "ai_router_speculations", "Speculations, and why there was none", ["result"], registry=registry
        )
        self._saved_seconds = Counter(
            "ai_router_speculation_saved_seconds", "Waiting that speculation spared clients", registry=registry
        )
        self._wasted_seconds = Counter(
            "ai_router_speculation_wasted_seconds", "Time of the primary spent on lost speculations", registry=registry
        )
        self._saved_tokens = Counter(
            "ai_router_speculation_saved_tokens",
            "Tokens there when it was decided (estimate)",
            registry=registry,
        )
        self._wasted_tokens = Counter(
            "ai_router_speculation_wasted_tokens", "Tokens of lost speculations (estimate)", registry=registry
        )

    def guessed(self, confidence: float, seconds: float) -> None:
        """The head has guessed."""
        self._head_seconds.observe(seconds)
        self._head_confidence.observe(confidence)

    def shadowed(self, label: Label, *, agreed: bool) -> None:
        """The classifier was asked about a decision of the head's."""
        self._shadow.labels(label, str(agreed).lower()).inc()

    def speculated(self, result: SpeculationResult, ms: float, tokens: int) -> None:
        """A speculation has come out: ``ms`` and ``tokens`` saved by a hit, wasted by any other."""
        self._speculations.labels(result).inc()
        hit = result is SpeculationResult.HIT
        (self._saved_seconds if hit else self._wasted_seconds).inc(max(ms, 0.0) / 1000)
        (self._saved_tokens if hit else self._wasted_tokens).inc(max(tokens, 0))

    def not_speculated(self, why: str) -> None:
        """The classifier was asked without a speculation; ``why`` is a word of the policy's."""
        self._speculations.labels(f"skipped_{why}").inc()

    def finished(self, outcome: Outcome) -> None:
        """A subscriber of outcomes."""
        decision = outcome.decision
        if decision is None:
            return
        self._decisions.labels(decision.decided_by, decision.label).inc()
        if decision.decided_by is DecidedBy.CLASSIFIER and decision.duration_ms is not None:
            self._classifier_seconds.observe(decision.duration_ms / 1000)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when it is scraped."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
