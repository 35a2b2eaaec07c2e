"""Deciding where a request goes, cheapest first: the client's word, META, what was decided before, the head, the
classifier.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from ai_router.errors import RouterError, UpstreamError
from ai_router.http.calls import UpstreamCall
from ai_router.providers.names import resolve
from ai_router.providers.registry import CLASSIFIER, Registry
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.resilience.retry import record_result
from ai_router.routing.classifier import Classifier
from ai_router.routing.conversations import TurnKey, stay, turn_keys
from ai_router.routing.fast_path import FastPath
from ai_router.routing.head.guess import Guess
from ai_router.routing.meta import task_in_template
from ai_router.routing.verdict import Verdict
from ai_router.types import ROUTE_OF_LABEL, ChatRequest, DecidedBy, Decision, Label, Route

RELIED_ON = 0.5
"""When the classifier fails, the head's guess stands if it is at least this likely; below, the default route does."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """What the cheap deciders could not settle, and what they think. ``before``: the label to stay with, if any."""

    key: bytes | None
    guess: Guess | None
    before: Label | None
    turn_keys: tuple[TurnKey | None, TurnKey]


_UNKNOWN = Undecided(key=None, guess=None, before=None, turn_keys=(None, b""))


class Router:
    """Decides. ``decide_at_once`` takes no call; ``determine_route`` asks the classifier; ``learn`` remembers."""

    def __init__(
        self, registry: Registry, classifier: Classifier | None, fast_path: FastPath | None, limiter: ConcurrencyLimiter
    ) -> None:
        self._registry = registry
        self._classifier = classifier
        self._fast = fast_path
        self._limiter = limiter

    def decide_at_once(self, request: ChatRequest) -> Decision | Undecided:
        """The decision, where it takes no call, or where a call would be in vain. Raises ModelNotFound."""
        found = self._explicit(request) or _meta(request) or self._fast_decision(request)
        if isinstance(found, Undecided):
            blocked_s, why = self._limiter.blocked_for(CLASSIFIER)
            if blocked_s > 0:
                return _without_verdict(found, f"not asked, it is {why}")
        return found

    def determine_route(
        self, request: ChatRequest, undecided: Undecided, new_call: Callable[[], UpstreamCall]
    ) -> Decision:
        """The classifier's decision, or what stands in for it, with the classifier's failure in it.

        Raises only what a call was aborted for.
        """
        if self._classifier is None:
            raise ValueError("there is no classifier to ask; decide_at_once decides everything")
        permit = self._limiter.acquire([CLASSIFIER])
        if permit is None:
            return _without_verdict(undecided, "not asked, it is being tried by another request", 0.0)
        started = time.monotonic()
        try:
            verdict = self._classifier.classify(request, new_call)
        except RouterError as problem:
            record_result(permit, problem)
            if isinstance(problem, UpstreamError):
                return _without_verdict(undecided, problem.detail, _ms_since(started))
            raise
        else:
            permit.succeeded()
        finally:
            permit.release()
        decision = _of_verdict(verdict, _ms_since(started))
        if self._fast is not None:
            self._fast.learn(undecided.key, undecided.guess, decision)
            decision = stay(decision, undecided.before)
            self._fast.remember(undecided.turn_keys, decision)
        return decision

    def _explicit(self, request: ChatRequest) -> Decision | None:
        named = resolve(self._registry, request.model, request.timestamp.date())
        if named is None:
            return None
        return Decision(
            label=Label.EXPLICIT,
            route=named.route,
            decided_by=DecidedBy.EXPLICIT,
            reason=f"the client named '{request.model}'",
            confidence=1.0,
            model=named.model,
            warning=named.warning,
        )

    def _fast_decision(self, request: ChatRequest) -> Decision | Undecided:
        """What is known or plain. Without a classifier the head's guess has to do, sure or not."""
        if self._fast is None:
            return _UNKNOWN if self._classifier else _default("no classifier and FAST_ROUTING=off")
        keys = turn_keys(request.messages)
        before = self._fast.label_at(keys[0])
        key = self._fast.key(request) if self._classifier is not None else None
        known = self._fast.known(key)
        guess = None if known else self._fast.guess(request)
        decision = known or self._of_guess(guess)
        if decision is None:
            return Undecided(key, guess, before, keys)
        decision = stay(decision, before)
        self._fast.remember(keys, decision)
        if guess is not None:
            self._fast.shadow(request, guess)
        return decision

    def _of_guess(self, guess: Guess | None) -> Decision | None:
        """The guess as a decision, where it may be one; without a classifier it has to be."""
        if guess is None or self._fast is None or not (self._classifier is None or self._fast.trusts(guess)):
            return None
        return Decision(guess.label, ROUTE_OF_LABEL[guess.label], DecidedBy.FAST, guess.reason, guess.confidence)


def _meta(request: ChatRequest) -> Decision | None:
    task = request.task or task_in_template(request.messages)
    if task is None:
        return None
    return Decision(Label.META, Route.META, DecidedBy.META, f"a chat UI's background job: {task}", confidence=1.0)


def _of_verdict(verdict: Verdict, duration_ms: float) -> Decision:
    return Decision(
        label=verdict.label,
        route=ROUTE_OF_LABEL[verdict.label],
        decided_by=DecidedBy.CLASSIFIER,
        reason=f"classifier: {verdict.label}",
        confidence=verdict.confidence,
        duration_ms=duration_ms,
        finish_reason=verdict.finish_reason,
    )


def _without_verdict(undecided: Undecided, failure: str, duration_ms: float | None = None) -> Decision:
    """The head's guess, unsure as it is, where it is likelier than not; else the default route."""
    problem = f"no decision from the classifier ({failure})"
    guess = undecided.guess
    if guess is None or guess.confidence < RELIED_ON:
        decision = _default(f"{problem}; the default route")
    else:
        decision = Decision(
            guess.label, ROUTE_OF_LABEL[guess.label], DecidedBy.FAST, f"{problem}; {guess.reason}", guess.confidence
        )
    return dataclasses.replace(stay(decision, undecided.before), duration_ms=duration_ms, failure=failure)


def _default(reason: str) -> Decision:
    return Decision(Label.MODERATE, Route.PRIMARY, DecidedBy.DEFAULT, reason)


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
