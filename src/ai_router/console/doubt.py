"""How sure the decisions were, and what another threshold would have changed.

The head guesses the stored sessions anew, on a thread of its own, in slices of SLICE_S seconds; guesses are kept. So an
answer comes after a slice at the latest, with what is known by then, and the next one knows more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any

from cachetools import LRUCache

from ai_router.config import SessionBodies
from ai_router.errors import Overloaded
from ai_router.learning.examples import StoredSession, session_of
from ai_router.learning.replay import policy_named, replay
from ai_router.providers.registry import CLASSIFIER
from ai_router.routing.head.model import Guess, Head
from ai_router.routing.verdict import LABELS
from ai_router.storage.session_reader import SessionFiles, summary_of
from ai_router.types import ROUTE_OF_LABEL, Route

SLICE_S = 2.0
MAX_SESSIONS = 500
_KEPT_GUESSES = 20_000
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored session that the router decided. ``session``: None where its text was not kept. ``guess``: what the head
    makes of it now; None: not known yet, or there is no head, or no text."""

    summary: Mapping[str, Any]
    leaves: bool
    session: StoredSession | None
    guess: Guess | None


class Doubts:
    """Reads and guesses the stored sessions. ``head``: the present one, None without. ``is_local``: whether a route
    stays at home."""

    def __init__(self, files: SessionFiles, head: Callable[[], Head | None], is_local: Callable[[str], bool]) -> None:
        self._files = files
        self._head = head
        self._is_local = is_local
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._lock = threading.Lock()
        self._judging: Head | None = None
        self._guesses: LRUCache[str, Guess] = LRUCache(_KEPT_GUESSES)
        """The guesses of ``_judging`` by session id. Both are for the thread alone."""
        self._running: dict[tuple[str | None, int], Future[tuple[list[Judged], bool]]] = {}

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def judged(self, client: str | None, limit: int) -> tuple[list[Judged], bool]:
        """The newest ``limit`` sessions that the router decided, newest first, and whether all are guessed. Raises
        Overloaded if others' take too long."""
        key = (client, limit)
        with self._lock:
            future = self._running.get(key)
            if future is None:
                future = self._running[key] = self._thread.submit(self._run, key)
        try:
            return future.result(_ANSWER_S)
        except TimeoutError:
            raise Overloaded("others have sessions decided anew; try again in a moment") from None

    def report(self, client: str | None, limit: int) -> Mapping[str, Any]:
        """The decisions as points on the axis of the head's confidence."""
        judged, complete = self.judged(client, limit)
        head = self._head()
        return {
            "threshold": round(head.threshold, 4) if head else None,
            "complete": complete,
            "data": [self._point(one) for one in judged],
        }

    def replayed(self, client: str | None, limit: int, threshold: float) -> Mapping[str, Any]:
        """What would have gone elsewhere, cost and left if the head had decided from ``threshold`` on."""
        judged, complete = self.judged(client, limit)
        known = [(one, one.session, one.guess) for one in judged if one.session is not None and one.guess is not None]
        guesses = {session.session_id: guess for _, session, guess in known}
        sessions = [session for _, session, _ in known]
        policy = policy_named(f"cascade:{threshold}", lambda session: guesses[session.session_id])
        found = replay(sessions, policy)
        new_labels = {session.session_id: policy(session).label for session in sessions}
        moved = [
            {"session_id": session.session_id, "from": session.route, "to": str(ROUTE_OF_LABEL[label])}
            for session in sessions
            if (label := new_labels[session.session_id]) != session.label
        ]
        elsewhere = {move["session_id"]: move["to"] for move in moved}
        return {
            "threshold": threshold,
            "complete": complete,
            "sessions": found.sessions,
            "without_text": len(judged) - len(sessions),
            "moved": moved,
            "asks_classifier": {"before": found.asked_before, "after": found.asked},
            "cost_usd": {"before": round(found.before_usd, 6), "after": round(found.after_usd, 6)},
            "wait_ms": {"before": found.before_ms, "after": found.after_ms},
            "leaves": {
                "before": sum(one.leaves for one, _, _ in known),
                "after": sum(
                    self._route_leaves(elsewhere[session.session_id]) if session.session_id in elsewhere else one.leaves
                    for one, session, _ in known
                ),
            },
        }

    def _route_leaves(self, route: str) -> bool:
        return route == Route.ENRICH or not self._is_local(route)

    def _point(self, one: Judged) -> Mapping[str, Any]:
        names = ("session_id", "request_id", "timestamp", "route", "label", "decided_by", "confidence", "cost_usd")
        guess = one.guess
        return {
            **{name: one.summary[name] for name in names},
            "opening": one.summary["opening"],
            "leaves": one.leaves,
            "guess": None if guess is None else _guess_json(guess),
        }

    def _run(self, key: tuple[str | None, int]) -> tuple[list[Judged], bool]:
        """On its thread. Whoever asks from now on gets another slice."""
        try:
            return self._slice(*key)
        finally:
            with self._lock:
                del self._running[key]

    def _slice(self, client: str | None, limit: int) -> tuple[list[Judged], bool]:
        end, head = monotonic() + SLICE_S, self._head()
        if head is not self._judging:
            self._judging = head
            self._guesses.clear()
        judged, complete, before = list[Judged](), True, len(self._guesses)
        for document in self._files.documents(client):
            # One is guessed however late it is, so that each slice gets on.
            in_time = monotonic() < end or len(self._guesses) == before
            one, known = self._judge_session(document, head, may_guess=in_time)
            if one is not None:
                judged.append(one)
                complete &= known
            if len(judged) == limit:
                break
        return judged, complete

    def _judge_session(
        self, document: Mapping[str, Any], head: Head | None, *, may_guess: bool
    ) -> tuple[Judged | None, bool]:
        """The session if the router decided it, and whether its guess is known, as far as it can be."""
        try:
            summary = summary_of(document)
            if summary["label"] not in LABELS:
                return None, True
            kept = document.get("bodies", SessionBodies.FULL) == SessionBodies.FULL and document["client_messages"]
            session = session_of(document) if kept else None
            leaves = self._left(document)
        except (KeyError, TypeError, ValueError, AttributeError):  # not a session, although it looks like one
            return None, True
        if head is None or session is None:
            return Judged(summary, leaves, session, None), True
        guess = self._guesses.get(session.session_id)
        if guess is None and may_guess:
            guess = self._guesses[session.session_id] = head.guess(session.messages, session.year)
        return Judged(summary, leaves, session, guess), guess is not None

    def _left(self, document: Mapping[str, Any]) -> bool:
        """Whether any call of the session went to a backend that is not local."""
        asked = {step["backend"] for step in document["steps"] if step["kind"] == "provider_call"}
        kinds = {step["kind"] for step in document["steps"]}
        asked |= {CLASSIFIER} if "classification" in kinds else set()
        return "enrichment" in kinds or any(not self._is_local(name) for name in asked)


def _guess_json(guess: Guess) -> Mapping[str, Any]:
    return {
        "label": guess.label,
        "confidence": round(guess.confidence, 4),
        "probabilities": {label: round(share, 4) for label, share in guess.probabilities.items()},
    }
