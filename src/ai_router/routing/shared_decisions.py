"""What other processes have decided: the classifier's decisions, and the labels of turns, by digests.

All that a request may need is read in one round trip. Writing waits for nothing. No word of a prompt is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from ai_router.routing.cache import ENRICH_TTL_S, Key
from ai_router.routing.conversations import TurnKey
from ai_router.routing.verdict import LabelSet
from ai_router.shared.values import Values
from ai_router.types import DecidedBy, Decision, Label, LabelName, label_named, route_of

_TURN_S = 6 * 3600.0
"""How long a conversation may pause and still be known to other processes."""


class Remembered(NamedTuple):
    """What other processes know. ``previous``: the label to stay with; ``current``: what this turn was decided as;
    ``decision``: the classifier's on the same question. Each None: unknown."""

    previous: LabelName | None = None
    current: LabelName | None = None
    decision: Decision | None = None

    def among(self, labels: LabelSet) -> Remembered:
        """The same without routes of the owner's that there are no more."""
        if all(label is None or label in labels.names for label in self[:2]):
            return self
        previous, current = (label if label in labels.names else None for label in self[:2])
        return self._replace(previous=previous, current=current)


_NOTHING = Remembered()


class SharedDecisions:
    """``ttl_s``: how long a decision is good for, in seconds. Safe from any thread."""

    def __init__(self, values: Values, ttl_s: float) -> None:
        self._values = values
        self._ttl_s = ttl_s

    def recall(
        self, previous: TurnKey | None, current: TurnKey | None, key: Key | None, values: Values | None = None
    ) -> Remembered:
        """What is known of the turn before, of this one, and of the question; None for what is not asked.

        ``values``: a reader that fetches these together with the limits of the request's key, in one round trip; None:
        they are fetched by themselves.
        """
        wanted: dict[str, str] = {}
        if previous is not None:
            wanted["previous"] = _turn_name(previous)
        if current is not None:
            wanted["current"] = _turn_name(current)
        if key is not None:
            wanted["decision"] = _decision_name(key)
        found = (values or self._values).get(list(wanted.values())) if wanted else None
        if found is None:
            return _NOTHING
        known = {what: orjson.loads(value) for what, value in zip(wanted, found, strict=True) if value is not None}
        return Remembered(
            _label(known.get("previous", {}).get("keep")),
            _label(known.get("current", {}).get("own")),
            _decision(known["decision"]) if "decision" in known else None,
        )

    def remember_turn(self, turn: TurnKey, own: LabelName, keep: LabelName | None) -> None:
        """Keep what a turn was decided as, and what the next one may stay with; None: with nothing."""
        self._values.put(_turn_name(turn), orjson.dumps({"own": own, "keep": keep}), _TURN_S)

    def remember_decision(self, key: Key, decision: Decision) -> None:
        """Keep a decision of the classifier's."""
        ttl_s = min(self._ttl_s, ENRICH_TTL_S) if decision.label is Label.ENRICH else self._ttl_s
        share = decision.complex_share
        value = orjson.dumps({"label": decision.label, "confidence": decision.confidence, "complex_share": share})
        self._values.put(_decision_name(key), value, ttl_s)


def _turn_name(turn: TurnKey) -> str:
    return f"turn:{turn.hex()}"


def _decision_name(key: Key) -> str:
    return f"decision:{key.hex()}"


def _label(name: str | None) -> LabelName | None:
    return None if name is None else label_named(name)


def _decision(value: Mapping[str, Any]) -> Decision:
    label = label_named(value["label"])
    reason, share = f"classifier: {label}", value.get("complex_share")
    return Decision(label, route_of(label), DecidedBy.CLASSIFIER, reason, value["confidence"], complex_share=share)
