"""Deciding where a request goes, cheapest first: the client's word, META, rules or the classifier, the default."""

from __future__ import annotations

import time

from ai_router.errors import UpstreamError
from ai_router.exchange import ROUTE_OF_LABEL, ChatRequest, DecidedBy, Decision, Label, Route
from ai_router.providers.registry import Registry
from ai_router.routing.classifier import Classifier
from ai_router.routing.meta import task_in_template
from ai_router.routing.rules import match_rules
from ai_router.upstream.leg import Leg


class Router:
    """Decides; holds nothing that changes."""

    def __init__(self, registry: Registry, classifier: Classifier | None, *, use_rules: bool) -> None:
        self._registry = registry
        self._classifier = classifier
        self._use_rules = use_rules

    def decide_at_once(self, request: ChatRequest) -> Decision | None:
        """The decision, where it takes no call; None where the classifier has to be asked. Raises ModelNotFound."""
        return self._explicit(request) or _meta(request) or self._without_classifier(request)

    def determine_route(self, request: ChatRequest, leg: Leg) -> Decision:
        """The classifier's decision, or the default route with the classifier's failure in it.

        Raises only what ``leg`` was aborted for.
        """
        if self._classifier is None:
            raise ValueError("there is no classifier to ask; decide_at_once decides everything")
        started = time.monotonic()
        try:
            verdict = self._classifier.classify(request, leg)
        except UpstreamError as problem:
            return _default(
                f"no decision from the classifier ({problem.detail}); the default route",
                duration_ms=_ms_since(started),
                failure=problem.detail,
            )
        return Decision(
            label=verdict.label,
            route=ROUTE_OF_LABEL[verdict.label],
            decided_by=DecidedBy.CLASSIFIER,
            reason=f"classifier: {verdict.label}",
            confidence=verdict.confidence,
            duration_ms=_ms_since(started),
            finish_reason=verdict.finish_reason,
        )

    def _explicit(self, request: ChatRequest) -> Decision | None:
        named = self._registry.resolve(request.model)
        if named is None:
            return None
        return Decision(
            label=Label.EXPLICIT,
            route=named.route,
            decided_by=DecidedBy.EXPLICIT,
            reason=f"the client named '{request.model}'",
            confidence=1.0,
            model=named.model,
        )

    def _without_classifier(self, request: ChatRequest) -> Decision | None:
        if self._classifier is not None:
            return None
        match = match_rules(request.messages) if self._use_rules else None
        if match is None:
            return _default("no classifier and no rule for this; the default route")
        return Decision(match.label, ROUTE_OF_LABEL[match.label], DecidedBy.FAST, match.reason)


def _meta(request: ChatRequest) -> Decision | None:
    task = request.task or task_in_template(request.messages)
    if task is None:
        return None
    return Decision(Label.META, Route.META, DecidedBy.META, f"a chat UI's background job: {task}", confidence=1.0)


def _default(reason: str, duration_ms: float | None = None, failure: str | None = None) -> Decision:
    return Decision(
        Label.MODERATE,
        Route.PRIMARY,
        DecidedBy.DEFAULT,
        reason,
        duration_ms=duration_ms,
        failure=failure,
    )


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
