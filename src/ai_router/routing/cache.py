"""The decision cache: what the classifier decided, for when the same is asked again. Bounded in size and in time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from cachetools import TLRUCache

from ai_router.routing.prompt import render_conversation
from ai_router.types import ChatRequest, Decision, Label

ENRICH_TTL_S = 60.0
"""Seconds. ENRICH says that the answer changes with time, and so may the need for it: "who won?" is another question
during a match than after it."""

Key = bytes


def cache_key(request: ChatRequest, context_chars: int, labels: bytes = b"") -> Key:
    """A digest of what decides: the conversation as the classifier would be shown it (``context_chars`` characters of
    it), and the day. White space and case do not count.

    And of what it can be decided to be (``labels``, Labels.digest), and of whose key it is: else a client could find
    out what another one has asked.
    """
    conversation = " ".join(render_conversation(request.messages, context_chars).split()).casefold()
    shown = f"{request.client}\0{request.timestamp:%Y-%m-%d} {conversation}"
    return hashlib.blake2b(labels + shown.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class DecisionCache:
    """The classifier's decisions, at most ``size``; the least recently used one is dropped first.

    A decision is good for ``ttl_s`` seconds of ``clock``; an ENRICH for ENRICH_TTL_S at most. Safe from any thread.
    """

    def __init__(self, size: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        def expires(_key: Key, decision: Decision, now: float) -> float:
            return now + (min(ttl_s, ENRICH_TTL_S) if decision.label is Label.ENRICH else ttl_s)

        self._decisions: TLRUCache[Key, Decision] = TLRUCache(size, ttu=expires, timer=clock)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:  # counting drops what has expired
            return len(self._decisions)

    def get(self, key: Key) -> Decision | None:
        """The decision; None if none was made or it has expired."""
        with self._lock:
            return self._decisions.get(key)

    def put(self, key: Key, decision: Decision) -> None:
        """Keep a decision of the classifier's; a default that stands in for a failed one must not be put here."""
        with self._lock:
            self._decisions[key] = decision
