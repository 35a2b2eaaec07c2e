"""The in-process part of deciding: the decision cache, the head, the memory of conversations, and who watches the
head.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from ai_router.observability.metrics import RoutingMetrics
from ai_router.routing.cache import DecisionCache, Key, cache_key
from ai_router.routing.conversations import Conversations, TurnKey
from ai_router.routing.head.guess import Guess
from ai_router.routing.head.store import HeadStore
from ai_router.routing.monitor import Monitor
from ai_router.routing.shadow import Shadow
from ai_router.types import ChatRequest, DecidedBy, Decision, Label


@dataclass(frozen=True, slots=True)
class FastPath:
    """Everything that decides without a call. ``context_chars`` is what the classifier is shown; ``shadow`` is there if
    there is a classifier to compare with."""

    heads: HeadStore
    cache: DecisionCache
    conversations: Conversations
    monitor: Monitor
    metrics: RoutingMetrics
    context_chars: int
    shadow_asks: Shadow | None = None

    def key(self, request: ChatRequest) -> Key:
        """Under which the classifier's decision on the request is kept."""
        return cache_key(request, self.context_chars)

    def known(self, key: Key | None) -> Decision | None:
        """The classifier's decision, if it has made it already and not too long ago."""
        kept = self.cache.get(key) if key is not None else None
        if kept is None:
            return None
        return dataclasses.replace(
            kept,
            decided_by=DecidedBy.CACHE,
            reason=f"decided before ({kept.reason})",
            duration_ms=None,
            finish_reason=None,
        )

    def guess(self, request: ChatRequest) -> Guess:
        """The head's guess, also while it is out of service: then it is compared with what the classifier says."""
        started = time.perf_counter()
        guess = self.heads.current.guess(request.messages, request.timestamp.year)
        self.metrics.guessed(guess.confidence, time.perf_counter() - started)
        self.monitor.saw(guess.confidence)
        return guess

    def trusts(self, guess: Guess) -> bool:
        """Whether the guess may decide: the head is sure of it, and in service."""
        return guess.sure and self.monitor.in_service

    def learn(self, key: Key | None, guess: Guess | None, decision: Decision) -> None:
        """The classifier decided: keep it, and compare with what the head would have said."""
        if key is not None:
            self.cache.put(key, decision)
        if guess is not None and guess.sure:
            self.monitor.compare(agreed=guess.label == decision.label)

    def shadow(self, request: ChatRequest, guess: Guess) -> None:
        """Perhaps have the classifier asked about a decision of the head's, some time later."""
        if self.shadow_asks is not None:
            self.shadow_asks.offer(request, guess)

    def label_at(self, key: TurnKey | None) -> Label | None:
        """The label of the turn at ``place`` that may be stayed with."""
        return self.conversations.label_at(key)

    def remember(self, keys: tuple[TurnKey | None, TurnKey], decision: Decision) -> None:
        """The turn at ``place`` was decided."""
        self.conversations.remember(*keys, decision.label)
