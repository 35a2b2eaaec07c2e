"""Keeping a conversation where it is: which label its previous turn had, and the rule for staying with it.

The rule. A turn stays with the label of the turn before it if the new decision is another one and unsure of it, that
is, gave less than STAY_BELOW for it. Only MODERATE and COMPLEX stay: they are two backends, each with the conversation
in its prefix cache. ENRICH is about the question and not about the conversation, so it neither stays nor is stayed
with; a turn after it stays with the one before it. A decision that states no confidence counts as sure.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from ai_router.exchange import ROUTE_OF_LABEL, Decision, Label, Message
from ai_router.routing.text import text_of

STAY_BELOW = 0.8
_STAYING = frozenset({Label.MODERATE, Label.COMPLEX})
_TURN_CHARS = 200

Place = bytes
"""A digest of what the user has said up to a turn: where in which conversation one is."""


def places(messages: Sequence[Message]) -> tuple[Place | None, Place]:
    """(the place of the previous user turn, or None for a first one; the place of this one).

    Of each turn both ends count, and its length: a megabyte of history costs no more than its number of turns.
    """
    said = [message for message in messages if message.get("role") == "user"]
    digest = hashlib.blake2b(digest_size=16)
    for part in _ends(said[:-1]):
        digest.update(part)
    before = digest.digest() if len(said) > 1 else None
    for part in _ends(said[-1:]):
        digest.update(part)
    return before, digest.digest()


def _ends(turns: Sequence[Message]) -> Iterator[bytes]:
    for turn in turns:
        text = text_of(turn)
        yield f"{len(text)}\0{text[:_TURN_CHARS]}\0{text[-_TURN_CHARS:]}\0".encode("utf-8", "surrogatepass")


def stay(decision: Decision, before: Label | None) -> Decision:
    """The decision, or the label of the turn before where the rule says so. Pure."""
    sure = decision.confidence is None or decision.confidence >= STAY_BELOW
    if before is None or sure or decision.label == before or decision.label not in _STAYING:
        return decision
    return dataclasses.replace(
        decision,
        label=before,
        route=ROUTE_OF_LABEL[before],
        reason=f"stays {before} like the turn before, since this is unsure ({decision.reason})",
        confidence=None,
    )


class Conversations:
    """The labels of the last ``size`` turns that may be stayed with. Safe from any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._labels: OrderedDict[Place, Label] = OrderedDict()
        self._lock = threading.Lock()

    def label_at(self, place: Place | None) -> Label | None:
        """The label to stay with, of the turn at ``place``; None if there is none or it was forgotten."""
        if place is None:
            return None
        with self._lock:
            return self._labels.get(place)

    def remember(self, before: Place | None, here: Place, label: Label) -> None:
        """The turn at ``here`` got ``label``; an ENRICH passes on what was before it."""
        with self._lock:
            kept = label if label in _STAYING else self._labels.get(before) if before is not None else None
            if kept is None:
                return
            self._labels[here] = kept
            self._labels.move_to_end(here)
            while len(self._labels) > self._size:
                self._labels.popitem(last=False)
