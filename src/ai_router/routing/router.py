"""Deciding where a request goes, cheapest first: the model that the client named, META tasks, the route that it named,
local-only, a turn that goes on, the decision cache, the head, the classifier.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ai_router.config import SessionBodies
from ai_router.errors import RouterError, UpstreamError
from ai_router.http.calls import UpstreamCall
from ai_router.observability.redaction import kept_detail
from ai_router.providers.names import explicit_decision, resolve
from ai_router.providers.own_routes import OwnRoute
from ai_router.providers.registry import AUTO, CLASSIFIER, Registry
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.resilience.retry import record_result
from ai_router.routing.classifier import Classifier
from ai_router.routing.complaints import complaint
from ai_router.routing.conversations import (
    CIRCLES,
    TurnKey,
    conversation_decision,
    goes_in_circles,
    goes_on,
    is_continuation,
    stay,
    turn_keys,
)
from ai_router.routing.dial import LOWEST, at_home, dialled, with_share
from ai_router.routing.fast_path import (
    NOTHING_KNOWN,
    FastPath,
    Undecided,
    cached_decision,
    default_decision,
    fallback_decision,
    head_decision,
    own_decision,
)
from ai_router.routing.first_words import FirstWords, reconsidered
from ai_router.routing.head.model import Guess, Head
from ai_router.routing.head.own_routes import NO_ROUTES
from ai_router.routing.labels import Labels
from ai_router.routing.local_only import decide_local_only
from ai_router.routing.prompt import job_in_messages
from ai_router.routing.shared_decisions import Remembered
from ai_router.routing.verdict import decision_of
from ai_router.shared.values import Values
from ai_router.types import ChatRequest, DecidedBy, Decision, Label, LabelName, Route


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would be decided; ``guess``: the head's, if it was asked."""

    decision: Decision
    guess: Guess | None


class Router:
    """Decides, in up to three steps: ``decide_at_once`` takes a few milliseconds of this processor,
    ``decide_with_slow_models`` ten or more, and ``determine_route`` asks the classifier. Safe from any thread."""

    def __init__(
        self,
        registry: Registry,
        classifier: Classifier | None,
        fast_path: FastPath | None,
        limiter: ConcurrencyLimiter,
        *,
        cloud_fallback: bool = True,
        bodies: SessionBodies = SessionBodies.FULL,
        quality: int | None = None,
        raises_on_complaint: bool = False,
        classifier_left_alone: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._cloud_fallback = cloud_fallback
        self._classifier = classifier
        self._fast_path = fast_path
        self._limiter = limiter
        self._bodies = bodies
        self._raises_on_complaint = raises_on_complaint
        self._left_alone = classifier_left_alone
        self.quality = quality
        """Of requests that say nothing of it (dial.py); None: the deciders' own. It may be changed at any time."""
        self._labels = Labels()
        self.know(registry.catalogue.routes)

    def know(self, routes: Mapping[str, OwnRoute]) -> None:
        """These are the owner's routes from now on."""
        self._labels = Labels(routes)
        if self._classifier is not None:
            self._classifier.labels = self._labels
        if self._fast_path is not None:
            self._fast_path.own_routes.want(self._labels.digests)

    def _escalates(self) -> bool:
        """Whether a tool loop that the primary runs in circles may go to a cloud."""
        return self._cloud_fallback and not self._registry.chains[Label.COMPLEX.lower()][0].backend.local

    @property
    def head(self) -> Head | None:
        """The present head of the fast path; None with FAST_ROUTING=off."""
        return None if self._fast_path is None else self._fast_path.heads.current

    def name_warning(self, request: ChatRequest) -> str | None:
        """What the client should know about the model that it named, although it was decided otherwise; None: nothing.

        Raises ModelNotFound.
        """
        return (
            None if request.model == AUTO else resolve(self._registry, request.model, request.timestamp.date()).warning
        )

    def dry_run(self, request: ChatRequest, new_call: Callable[[], UpstreamCall]) -> DryRun:
        """Decide as a real request would be decided, and change no cache, conversation or metric. The classifier is
        asked where it would be.

        Raises ModelNotFound, and what a call was aborted for.
        """
        router = copy.copy(self)
        fast_path = None if self._fast_path is None else self._fast_path.dry()
        router._fast_path = fast_path  # noqa: SLF001 - a copy of ourselves
        found = router.decide_at_once(request)
        if isinstance(found, Undecided) and found.head_guess is not None:
            found = router.decide_with_slow_models(request, found)
        decision = router.determine_route(request, found, new_call) if isinstance(found, Undecided) else found
        return DryRun(decision, fast_path.guesses[-1] if fast_path is not None and fast_path.guesses else None)

    def decide_at_once(self, request: ChatRequest, values: Values | None = None) -> Decision | Undecided:
        """The decision, if it needs neither slow models nor a call, or nobody can be asked now. ``values``: as of
        SharedDecisions.recall.

        Raises ModelNotFound.
        """
        explicit = self._explicit_decision(request)
        if explicit is not None and explicit.model is not None:
            return explicit
        # A background job is not worth a web search or a cloud call, also where the chat has a route for its model.
        decided = _meta_decision(request) or explicit
        if decided is None and request.local_only:
            own = NO_ROUTES if self._fast_path is None else self._fast_path.own_routes.current
            return decide_local_only(request, self._registry, self.head, own)
        found = decided or self._fast_decision(request, values)
        if isinstance(found, Undecided) and found.head_guess is None:
            return self._unless_blocked(request, found)
        return found

    def decide_with_slow_models(self, request: ChatRequest, undecided: Undecided) -> Decision | Undecided:
        """The decision of the head with its slow models, if that is sure, or if nobody else can be asked now.

        Raises ValueError where that was asked already.
        """
        if self._fast_path is None or undecided.head_guess is None:
            raise ValueError("the slow models have been asked")
        guess = self._fast_path.second_guess(request, undecided.head_guess)
        decision = self._guess_decision(guess)
        if decision is None:
            return self._unless_blocked(request, dataclasses.replace(undecided, guess=guess, head_guess=None))
        return self._decided_by_head(request, decision, guess, undecided.previous_label, undecided.turn_keys)

    def _unless_blocked(self, request: ChatRequest, found: Undecided) -> Decision | Undecided:
        """The same, or what is decided without the classifier if that cannot be asked now."""
        blocked_s, why = self._limiter.blocked_for(CLASSIFIER)
        if blocked_s > 0:
            return self._fallback(request, found, f"not asked, it is {why}")
        left_alone = None if self._fast_path is None else self._left_alone()
        return found if left_alone is None else self._fallback(request, found, f"not asked, {left_alone}")

    def determine_route(
        self, request: ChatRequest, undecided: Undecided, new_call: Callable[[], UpstreamCall]
    ) -> Decision:
        """The classifier's decision. If it gives none, the head's guess or the default route, with ``failure`` set.

        Raises what a call was aborted for, and ValueError where there is no classifier.
        """
        if self._classifier is None:
            raise ValueError("there is no classifier to ask; decide_at_once decides everything")
        permit = self._limiter.acquire([CLASSIFIER])
        if permit is None:
            return self._fallback(request, undecided, "not asked, it is being tried by another request", 0.0)
        started, permit.body = time.monotonic(), request.messages_json
        try:
            verdict = self._classifier.classify(request, new_call)
        except RouterError as problem:
            record_result(permit, problem)
            if isinstance(problem, UpstreamError):
                return self._fallback(request, undecided, kept_detail(problem, self._bodies), _ms_since(started))
            raise
        else:
            permit.succeeded()
        finally:
            permit.release()
        decision = decision_of(verdict, _ms_since(started))
        if undecided.guess is not None:
            decision = with_share(decision, undecided.guess.probabilities)
        if self._fast_path is not None:
            self._fast_path.record_verdict(undecided.key, undecided.guess, decision)
            decision = self._settled(request, decision, undecided.previous_label)
            self._fast_path.remember(undecided.turn_keys, decision.label, undecided.previous_label)
            return decision
        return self._settled(request, decision, None)

    def _settled(self, request: ChatRequest, decision: Decision, previous: LabelName | None) -> Decision:
        """The decision at the quality that is wanted, in its conversation."""
        quality, head = self._quality_of(request), self.head
        if quality is not None:
            decision = dialled(decision, quality, None if head is None else head.dial)
        return at_home(stay(decision, previous), quality)

    def _fallback(
        self, request: ChatRequest, undecided: Undecided, failure: str, duration_ms: float | None = None
    ) -> Decision:
        decision = fallback_decision(undecided.guess, failure, duration_ms)
        decision = self._settled(request, decision, undecided.previous_label)
        if self._fast_path is not None:
            self._fast_path.remember_own(undecided.turn_keys[1], decision.label)
        return decision

    def reconsider(self, request: ChatRequest, undecided: Undecided, decision: Decision, told: FirstWords) -> Decision:
        """The decision for the primary, changed by what the primary's answer tells of the request; itself, where
        nobody is there who could do better, or may."""
        better = self._registry.searchers if told.label is Label.ENRICH else self._escalates()
        if request.key is not None and request.key.limits.has_budget:
            # What is answered for nothing must not fail for want of money.
            return decision
        if not better or decision.label is not Label.MODERATE or self._quality_of(request) == LOWEST:
            return decision
        if self._fast_path is not None:
            self._fast_path.remember_own(undecided.turn_keys[1], told.label)
        return reconsidered(decision, told)

    def _explicit_decision(self, request: ChatRequest) -> Decision | None:
        named = resolve(self._registry, request.model, request.timestamp.date())
        if named.route == AUTO:
            return _SEARCH_WANTED if request.searches else None
        return explicit_decision(request.model, named)

    def _fast_decision(self, request: ChatRequest, values: Values | None) -> Decision | Undecided:
        """The decision of the cache or the head. Without a classifier the head's guess decides, sure or not."""
        if self._fast_path is None:
            if self._classifier is not None:
                return NOTHING_KNOWN
            return at_home(default_decision("no classifier and FAST_ROUTING=off"), self._quality_of(request))
        keys = turn_keys(request.messages, request.client)
        key = self._fast_path.key(request, self._labels) if self._classifier is not None else None
        known = self._fast_path.recall(keys, key, values, goes_on=goes_on(request.messages)).among(self._labels.names)
        previous_label = known.previous
        if (continued := self._continued_decision(request, keys, known)) is not None:
            return at_home(continued, self._quality_of(request))
        if known.decision is not None:
            decision = self._settled(request, cached_decision(known.decision), previous_label)
            self._fast_path.remember(keys, decision.label, previous_label)
            return decision
        found = self._fast_path.first_guess(request)
        guess = found.first.guess
        if not found.first.final:
            return Undecided(key, guess, previous_label, keys, found)
        guessed = self._guess_decision(guess)
        if guessed is None:
            return Undecided(key, guess, previous_label, keys)
        return self._decided_by_head(request, guessed, guess, previous_label, keys)

    def _continued_decision(
        self, request: ChatRequest, keys: tuple[TurnKey | None, TurnKey], known: Remembered
    ) -> Decision | None:
        """The decision where the conversation has made it already: in a tool loop, and after "go on"."""
        if self._fast_path is None:
            return None
        previous_label = known.previous
        if goes_on(request.messages):
            label = known.current
            if label is None:
                return None
            if label is not Label.COMPLEX and self._escalates() and goes_in_circles(request.messages):
                self._fast_path.remember(keys, Label.COMPLEX, previous_label)
                return conversation_decision(Label.COMPLEX, f"{CIRCLES} equal tool calls in a row led nowhere")
            return conversation_decision(label, f"goes on with a turn that was decided as {label}")
        if previous_label is not None and is_continuation(request.messages):
            self._fast_path.remember(keys, previous_label, previous_label)
            return conversation_decision(previous_label, f"says to go on, after a turn of {previous_label}")
        if self._may_raise(request) and previous_label is Label.MODERATE and (why := complaint(request.messages)):
            self._fast_path.remember(keys, Label.COMPLEX, previous_label)
            return conversation_decision(Label.COMPLEX, f"{why}, after an answer of the primary")
        return None

    def _may_raise(self, request: ChatRequest) -> bool:
        """Whether a complaint about the primary's answer sends the next turn to a cloud."""
        return self._raises_on_complaint and self._escalates() and self._quality_of(request) != LOWEST

    def _quality_of(self, request: ChatRequest) -> int | None:
        return self.quality if request.quality is None else request.quality

    def _decided_by_head(
        self,
        request: ChatRequest,
        decision: Decision,
        guess: Guess,
        previous_label: LabelName | None,
        keys: tuple[TurnKey | None, TurnKey],
    ) -> Decision:
        if self._fast_path is None:
            raise ValueError("there is no head")
        decision = self._settled(request, decision, previous_label)
        self._fast_path.remember(keys, decision.label, previous_label)
        if self._left_alone() is None:
            self._fast_path.offer_to_shadow(request, guess)
        return decision

    def _guess_decision(self, guess: Guess) -> Decision | None:
        """The guess as a decision; None if the classifier is there to be asked and the guess may not decide."""
        if self._fast_path is None:
            return None
        if (match := guess.own_match) is not None:
            in_service = self._classifier is None or self._fast_path.monitor.in_service
            if in_service and (match.sure or (match.matches and self._classifier is None)):
                return own_decision(match, guess, f"fast path: {match.reason}")
        if self._classifier is not None and (match is not None or not self._fast_path.trusts(guess)):
            return None
        return head_decision(guess, guess.reason)


def _meta_decision(request: ChatRequest) -> Decision | None:
    job = request.task or job_in_messages(request.messages)
    if job is None:
        return None
    return Decision(Label.META, Route.META, DecidedBy.META, f"a chat UI's background job: {job}", confidence=1.0)


_SEARCH_WANTED = Decision(
    Label.EXPLICIT, Route.ENRICH, DecidedBy.EXPLICIT, "the client's tool_choice asks for a web search", confidence=1.0
)


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
