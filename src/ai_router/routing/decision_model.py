"""Asking a decision model: a classifier that answers a typed question with probabilities, and writes no text.

``POST /v1/systemone``: a state, questions with criteria, and for each a probability per option. Seen in sparrow-decider
0.2.0; llama.cpp, Ollama and others have the same. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ai_router.routing.dial import complex_share
from ai_router.routing.labels import Labels
from ai_router.routing.verdict import Verdict
from ai_router.types import LabelName, label_named

PATH = "/systemone"
_QUESTION = "route"
_INSTRUCTIONS = "Where should the last user message of this conversation be answered?"
FINISHED = "decision"
"""The finish_reason of such a verdict, for the log."""
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the probabilities of a decision model are worth, learned from sessions (learning/classifier_calibration.py).

    ``temperature`` above 1: it is surer than it is right. ``bias``: what is added to the log-probability of a label,
    which it prefers too little, or too much.
    """

    temperature: float = 1.0
    bias: Mapping[LabelName, float] = field(default_factory=dict)

    def applied(self, probabilities: Mapping[LabelName, float]) -> Mapping[LabelName, float]:
        """Probabilities of the same labels, which add up to 1."""
        logits = {
            label: math.log(max(share, _LEAST)) / self.temperature + self.bias.get(label, 0.0)
            for label, share in probabilities.items()
        }
        peak = max(logits.values())
        shares = {label: math.exp(logit - peak) for label, logit in logits.items()}
        total = sum(shares.values())
        return {label: share / total for label, share in shares.items()}


AS_THEY_ARE = Calibration()


def decision_body(model: str, state: str, labels: Labels) -> bytes:
    """The body of a request. ``state``: the conversation as text."""
    question = {"type": "choice", "instructions": _INSTRUCTIONS, "criteria": labels.criteria}
    return orjson.dumps({"model": model, "state": state, "questions": {_QUESTION: question}})


def decision_verdict(payload: Mapping[str, Any], labels: Labels, calibration: Calibration) -> Verdict | None:
    """The verdict in an answer; None if it is none."""
    answers = payload.get("answers")
    answer = answers.get(_QUESTION) if isinstance(answers, Mapping) else None
    if not isinstance(answer, Mapping):
        return None
    choice, given = answer.get("choice"), answer.get("probabilities")
    shares = _shares(given, labels) if isinstance(given, Mapping) else {}
    if not shares:
        return Verdict(label_named(choice), None, FINISHED) if choice in labels.names.names else None
    found = calibration.applied(shares)
    best = max(found, key=lambda label: found[label])
    return Verdict(label_named(best), found[best], FINISHED, complex_share(found), found)


def _shares(given: Mapping[str, Any], labels: Labels) -> dict[LabelName, float]:
    """The probabilities of our labels; empty, if one of them is missing or is no number."""
    shares = {}
    for label in labels.names.names:
        share = given.get(label)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            return {}
        shares[label_named(label)] = float(share)
    return shares if sum(shares.values()) > 0 else {}
