"""Decisions the classifier has made, for when the same is asked again: bounded, and each good for a time only."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ai_router.routing.prompt import render_conversation
from ai_router.types import ChatRequest, Decision, Label

ENRICH_TTL_S = 60.0
"""ENRICH says that the answer changes, and so may the need for it: "who won?" is one thing during a match, another
after.
"""

Key = bytes


def cache_key(request: ChatRequest, budget: int) -> Key:
    """What the classifier would be shown of the request (``budget`` characters), blanks and case aside, and the day, as
    a digest."""
    conversation = " ".join(render_conversation(request.messages, budget).split()).casefold()
    shown = f"{request.timestamp:%Y-%m-%d} {conversation}"
    return hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class _Entry:
    decision: Decision
    expires: float


class DecisionCache:
    """The most recent ``size`` decisions; the one asked for longest ago goes first. Safe from any thread."""

    def __init__(self, size: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Decision | None:
        """The decision, if it was made and is still good."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires <= self._clock():
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry.decision

    def put(self, key: Key, decision: Decision) -> None:
        """Keep a decision of the classifier's; a default that stands in for a failed one must not be put here."""
        ttl_s = min(self._ttl_s, ENRICH_TTL_S) if decision.label is Label.ENRICH else self._ttl_s
        with self._lock:
            self._entries[key] = _Entry(decision, self._clock() + ttl_s)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
