"""How sure the decisions were, and what another threshold would have changed.

The head judges the stored sessions anew, on a thread of its own, in slices of SLICE_S seconds. What it makes of a
session is kept, without the session's words. So an answer comes soon, with what is known by then, and the next one
knows more.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson
from cachetools import LRUCache

from ai_router.config import SessionBodies
from ai_router.errors import Overloaded
from ai_router.learning.examples import StoredSession, session_of
from ai_router.learning.replay import PolicyDecision, replay
from ai_router.routing.head.model import Guess, Head
from ai_router.routing.verdict import LABELS
from ai_router.storage.session_reader import SessionFiles, summary_of
from ai_router.types import DecidedBy, Route, route_of

SLICE_S = 2.0
MAX_SESSIONS = 500
_KEPT = 20_000
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored session that the router decided. ``session``: without its messages; None where its text was not kept.
    ``guess``: what the head makes of it now; None: there is no head, or no text. ``leaves``: a call of it left."""

    client: str
    summary: Mapping[str, Any]
    leaves: bool
    session: StoredSession | None
    guess: Guess | None


@dataclass(frozen=True, slots=True)
class Deciders:
    """Who decides now. ``head``: the present one, None without. ``asks_classifier``: whether there is a classifier.
    ``is_local``: whether a backend, by its name, is at home; the classifier's name is ``classifier``."""

    head: Callable[[], Head | None]
    asks_classifier: bool
    is_local: Callable[[str], bool]


class Doubts:
    """Reads and judges the stored sessions. Safe from any thread."""

    def __init__(self, files: SessionFiles, deciders: Deciders) -> None:
        self._files = files
        self._deciders = deciders
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._lock = threading.Lock()
        self._running: dict[str | None, Future[tuple[list[Judged], bool]]] = {}
        self._judging: Head | None = None
        self._known: LRUCache[str, Judged | None] = LRUCache(_KEPT)
        """What ``_judging`` made of each file, by its name; None: the router did not decide it. For the thread alone,
        as is ``_judging``."""

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def judged(self, client: str | None, limit: int) -> tuple[list[Judged], bool]:
        """The newest ``limit`` sessions that the router decided, newest first, and whether that is all there are.
        Raises Overloaded if they take too long."""
        with self._lock:
            future = self._running.get(client)
            if future is None:
                future = self._running[client] = self._thread.submit(self._run, client)
        try:
            judged, complete = future.result(_ANSWER_S)
        except TimeoutError:
            raise Overloaded("judging the stored sessions takes long; try again in a moment") from None
        return judged[:limit], complete or len(judged) >= limit

    def report(self, client: str | None, limit: int) -> Mapping[str, Any]:
        """The decisions as points on the axis of the head's confidence."""
        judged, complete = self.judged(client, limit)
        head = self._deciders.head()
        return {
            "threshold": round(head.threshold, 4) if head else None,
            "has_classifier": self._deciders.asks_classifier,
            "complete": complete,
            "data": [_point(one) for one in judged],
        }

    def replayed(self, client: str | None, limit: int, threshold: float) -> Mapping[str, Any]:
        """What would have gone elsewhere, cost and left if the head had decided from ``threshold`` on."""
        judged, complete = self.judged(client, limit)
        known = [(one, one.session, one.guess) for one in judged if one.session is not None and one.guess is not None]
        head = self._deciders.head()
        present = head.threshold if head else 1.0
        decisions = {session.session_id: _decision(session, guess, threshold, present) for _, session, guess in known}
        sessions = [session for _, session, _ in known]
        found = replay(sessions, lambda session: decisions[session.session_id])
        moved = {
            session.session_id: str(route_of(decisions[session.session_id].label))
            for session in sessions
            if decisions[session.session_id].label != session.label
        }
        asks = {"before": found.asked_before, "after": found.asked} if self._deciders.asks_classifier else None
        return {
            "threshold": threshold,
            "complete": complete,
            "sessions": found.sessions,
            "without_text": sum(one.session is None for one in judged),
            "moved": [
                {"session_id": session.session_id, "from": session.route, "to": moved[session.session_id]}
                for session in sessions
                if session.session_id in moved
            ],
            "asks_classifier": asks,
            "cost_usd": {"before": round(found.before_usd, 6), "after": round(found.after_usd, 6)},
            "wait_ms": {"before": found.before_ms, "after": found.after_ms},
            "leaves": {
                "before": sum(one.leaves for one, _, _ in known),
                "after": sum(
                    self._route_leaves(moved[session.session_id]) if session.session_id in moved else one.leaves
                    for one, session, _ in known
                ),
            },
        }

    def _route_leaves(self, route: str) -> bool:
        return route == Route.ENRICH or not self._deciders.is_local(route)

    def _run(self, client: str | None) -> tuple[list[Judged], bool]:
        """On its thread. Whoever asks from now on gets another slice."""
        try:
            return self._slice(client)
        finally:
            with self._lock:
                del self._running[client]

    def _slice(self, client: str | None) -> tuple[list[Judged], bool]:
        end, head = monotonic() + SLICE_S, self._deciders.head()
        if head is not self._judging:
            self._judging = head
            self._known.clear()
        judged, read = list[Judged](), 0
        for name in self._files.names():
            if name not in self._known:
                # One is read however late it is, so that each slice gets on.
                if read and monotonic() >= end:
                    return judged, False
                read += 1
                self._known[name] = self._judge(self._files.read(name), head)
            one = self._known.get(name)
            if one is not None and client in (None, one.client):
                judged.append(one)
            if len(judged) == MAX_SESSIONS:
                break
        return judged, True

    def _judge(self, content: bytes | None, head: Head | None) -> Judged | None:
        """What is to be kept of a file; None if the router did not decide it, or if it is no session."""
        try:
            document = orjson.loads(content or b"")
            summary = summary_of(document)
            if summary["label"] not in LABELS:
                return None
            kept = document.get("bodies", SessionBodies.FULL) == SessionBodies.FULL and document["client_messages"]
            session = session_of(document) if kept else None
            leaves = self._left(document)
        except (KeyError, TypeError, ValueError, AttributeError):  # not a session, although it is named like one
            return None
        guess = None
        if session is not None:
            guess = None if head is None else head.guess(session.messages, session.year)
            session = dataclasses.replace(session, messages=())
        return Judged(summary["client"], summary, leaves, session, guess)

    def _left(self, document: Mapping[str, Any]) -> bool:
        """Whether any call of the session went to a backend that is not at home."""
        asked = {step["backend"] for step in document["steps"] if step["kind"] == "provider_call"}
        kinds = {step["kind"] for step in document["steps"]}
        asked |= {"classifier"} if "classification" in kinds else set()
        return "enrichment" in kinds or any(not self._deciders.is_local(name) for name in asked)


def _decision(session: StoredSession, guess: Guess, threshold: float, present: float) -> PolicyDecision:
    """What would be decided from ``threshold`` on, where it is ``present`` now. What follows the turn before stays with
    it. The head is never sure of a turn of which it cannot read all, and as sure as before where it was."""
    if session.decided_by is DecidedBy.CONVERSATION:
        return PolicyDecision(session.label, False)
    unreadable = not guess.sure and guess.confidence >= present
    if guess.confidence >= threshold and not unreadable:
        return PolicyDecision(guess.label, False)
    return PolicyDecision(session.label, True)


def _point(one: Judged) -> Mapping[str, Any]:
    names = ("session_id", "request_id", "timestamp", "route", "label", "decided_by", "confidence", "cost_usd")
    return {
        **{name: one.summary[name] for name in names},
        "opening": one.summary["opening"],
        "leaves": one.leaves,
        "guess": None if one.guess is None else _guess_json(one.guess),
    }


def _guess_json(guess: Guess) -> Mapping[str, Any]:
    return {
        "label": guess.label,
        "confidence": round(guess.confidence, 4),
        "probabilities": {label: round(share, 4) for label, share in guess.probabilities.items()},
    }
