"""What decides in this process, without a call: the decision cache, the head, and the labels of conversations."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from ai_router.observability.metrics import RoutingMetrics
from ai_router.routing.cache import DecisionCache, Key, cache_key
from ai_router.routing.conversations import Conversations, TurnKey
from ai_router.routing.dial import complex_share
from ai_router.routing.head.model import FirstGuess, Guess, Head
from ai_router.routing.head.own_routes import OwnMatch
from ai_router.routing.head.own_store import OwnRoutesStore
from ai_router.routing.head.store import HeadStore
from ai_router.routing.labels import Labels
from ai_router.routing.monitor import Monitor, ShadowClassifier
from ai_router.routing.shared_decisions import Remembered, SharedDecisions
from ai_router.routing.verdict import LABELS
from ai_router.shared.values import Values
from ai_router.types import ChatRequest, DecidedBy, Decision, Label, LabelName, Route, route_of

MIN_FALLBACK_CONFIDENCE = 0.5
"""When the classifier fails, the head's guess decides from this confidence on; below it, the default route does."""


class HeadGuess(NamedTuple):
    """A first guess, the head that made it, and the seconds that it took."""

    head: Head
    first: FirstGuess
    took_s: float


@dataclass(frozen=True, slots=True)
class Undecided:
    """A request that the head's slow models or the classifier have to decide, and what is known of it.

    ``head_guess``: the head's first guess, where its slow models are still to be asked
    (``Router.decide_with_slow_models``); None: the classifier is next.
    ``key``: in the decision cache; None if the decision is not kept. ``guess``: the head's, which may not decide: it is
    not sure, or the head is out of service; None without a head. ``previous_label``: of the previous turn, to stay
    with; None if there is none. ``turn_keys``: of the previous and the current turn.
    """

    key: bytes | None
    guess: Guess | None
    previous_label: LabelName | None
    turn_keys: tuple[TurnKey | None, TurnKey]
    head_guess: HeadGuess | None = None


NOTHING_KNOWN = Undecided(key=None, guess=None, previous_label=None, turn_keys=(None, b""))


@dataclass(frozen=True, slots=True)
class FastPath:
    """What decides in this process, without a call, and what it remembers.

    ``context_chars``: how many characters of conversation the classifier is shown, which is what the cache goes by.
    ``shared``: what other processes remember.
    ``shadow`` is None where there is no classifier to compare with, or where no share of decisions is to be compared.
    """

    heads: HeadStore
    own_routes: OwnRoutesStore
    cache: DecisionCache
    conversations: Conversations
    monitor: Monitor
    metrics: RoutingMetrics
    context_chars: int
    shared: SharedDecisions
    shadow: ShadowClassifier | None = None

    def key(self, request: ChatRequest, labels: Labels) -> Key:
        """The request's key in the decision cache, where these are the labels."""
        return cache_key(request, self.context_chars, labels.digest)

    def recall(
        self, keys: tuple[TurnKey | None, TurnKey], key: Key | None, values: Values | None = None, *, goes_on: bool
    ) -> Remembered:
        """What this process and others remember: of the turn before, of this one where the request ``goes_on`` with
        it, and of the question. At most one round trip. ``values``: as of SharedDecisions.recall."""
        previous = self.conversations.label_at(keys[0])
        current = self.conversations.own_label(keys[1]) if goes_on else None
        decision = self.cache.get(key) if key is not None else None
        elsewhere = self.shared.recall(
            keys[0] if previous is None else None,
            # Another process may have answered the last round, and changed it.
            keys[1] if goes_on else None,
            key if decision is None else None,
            values,
        )
        return Remembered(previous or elsewhere.previous, elsewhere.current or current, decision or elsewhere.decision)

    def first_guess(self, request: ChatRequest) -> HeadGuess:
        """The head's first guess. Also while the head is out of service: it is compared with the classifier's."""
        head, started = self.heads.current, time.perf_counter()
        first = head.first_guess(
            request.messages, request.timestamp.year, may_wait=False, own_routes=self.own_routes.current
        )
        took_s = time.perf_counter() - started
        if first.final:
            self._measured(first.guess, took_s)
        return HeadGuess(head, first, took_s)

    def second_guess(self, request: ChatRequest, before: HeadGuess) -> Guess:
        """The guess of the same head with its slow models."""
        started = time.perf_counter()
        guess = before.head.second_guess(before.first, request.timestamp.year, own_routes=self.own_routes.current)
        self._measured(guess, before.took_s + time.perf_counter() - started)
        return guess

    def _measured(self, guess: Guess, took_s: float) -> None:
        self.metrics.guessed(guess.confidence, took_s)
        self.monitor.record_confidence(guess.confidence)

    def trusts(self, guess: Guess) -> bool:
        """Whether the guess may decide: the head is sure of it, and in service."""
        return guess.sure and self.monitor.in_service

    def record_verdict(self, key: Key | None, guess: Guess | None, decision: Decision) -> None:
        """The classifier decided: keep the decision, and compare it with the head's guess where that was sure."""
        if key is not None:
            self.cache.put(key, decision)
            self.shared.remember_decision(key, decision)
        # Of an owner's routes the head knows what five examples tell: that is no reason to put it out of service.
        if guess is not None and guess.sure and guess.own_match is None and decision.label in LABELS:
            self.monitor.record_comparison(agreed=guess.label == decision.label)

    def offer_to_shadow(self, request: ChatRequest, guess: Guess) -> None:
        """Perhaps have the classifier asked afterwards about a decision of the head's."""
        if self.shadow is not None and guess.own_match is None:
            self.shadow.offer(request, guess)

    def remember(self, keys: tuple[TurnKey | None, TurnKey], label: LabelName, previous: LabelName | None) -> None:
        """Keep the label of a turn; ``keys`` are those of the previous and the current one, ``previous`` the label to
        stay with."""
        self.shared.remember_turn(keys[1], label, self.conversations.remember(*keys, label, previous))

    def remember_own(self, key: TurnKey, label: LabelName) -> None:
        """Keep the label of a turn for its own tool loop only."""
        self.conversations.remember_own(key, label)
        self.shared.remember_turn(key, label, self.conversations.label_at(key))

    def dry(self) -> DryFastPath:
        """The same for a dry run."""
        return DryFastPath(
            *(
                self.heads,
                self.own_routes,
                self.cache,
                self.conversations,
                self.monitor,
                self.metrics,
                self.context_chars,
            ),
            self.shared,
        )


@dataclass(frozen=True, slots=True)
class DryFastPath(FastPath):
    """Decides as the real one would, and changes nothing. ``guesses`` gets what the head guessed."""

    guesses: list[Guess] = field(default_factory=list)

    def _measured(self, guess: Guess, took_s: float) -> None:  # noqa: ARG002 - nothing is measured
        self.guesses.append(guess)

    def record_verdict(self, key: Key | None, guess: Guess | None, decision: Decision) -> None: ...
    def offer_to_shadow(self, request: ChatRequest, guess: Guess) -> None: ...
    def remember(self, keys: tuple[TurnKey | None, TurnKey], label: LabelName, previous: LabelName | None) -> None: ...
    def remember_own(self, key: TurnKey, label: LabelName) -> None: ...


def head_decision(guess: Guess, reason: str) -> Decision:
    """The guess as a decision."""
    return Decision(
        label=guess.label,
        route=route_of(guess.label),
        decided_by=DecidedBy.FAST,
        reason=reason,
        confidence=guess.confidence,
        ask=guess.ask,
        evidence=guess.evidence,
        complex_share=complex_share(guess.probabilities),
    )


def own_decision(match: OwnMatch, guess: Guess, reason: str) -> Decision:
    """The decision for an owner's route. It has no confidence: a few examples do not give a probability."""
    return Decision(match.label, route_of(match.label), DecidedBy.FAST, reason, ask=guess.ask)


def cached_decision(decision: Decision) -> Decision:
    """A decision of the classifier's, used again."""
    reason = f"decided before ({decision.reason})"
    return dataclasses.replace(
        decision, decided_by=DecidedBy.CACHE, reason=reason, duration_ms=None, finish_reason=None
    )


def fallback_decision(guess: Guess | None, failure: str, duration_ms: float | None = None) -> Decision:
    """The head's guess, if it is as likely as MIN_FALLBACK_CONFIDENCE; else the default route. ``failure``: why the
    classifier gave no decision."""
    problem = f"no decision from the classifier ({failure})"
    if guess is not None and guess.own_match is not None and guess.own_match.matches:
        decision = own_decision(guess.own_match, guess, f"{problem}; fast path: {guess.own_match.reason}")
    elif guess is None or guess.confidence < MIN_FALLBACK_CONFIDENCE:
        decision = default_decision(f"{problem}; the default route")
    else:
        decision = head_decision(guess, f"{problem}; {guess.reason}")
    return dataclasses.replace(decision, duration_ms=duration_ms, failure=failure)


def default_decision(reason: str) -> Decision:
    """The default route, where nobody could decide."""
    return Decision(Label.MODERATE, Route.PRIMARY, DecidedBy.DEFAULT, reason)
