"""The dial between cost and quality: from which probability of COMPLEX on a request goes to the cloud.

Quality is a whole number from 0 to 10. It says which share of the requests that the cloud would answer better may stay
with the primary all the same: at 0 all of them, at 5 as many as the head misses by itself, at 10 none that the
calibration knows of. The thresholds for that come with the head (learning/calibration.py). Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ai_router.types import Decision, Label, LabelName, route_of

LOWEST, NEUTRAL, HIGHEST = 0, 5, 10
NEUTRAL_THRESHOLD = 0.5
"""At NEUTRAL the likelier of the two labels is taken, as without a dial."""
NOTHING = 2.0
"""The threshold at LOWEST, which no share reaches."""


@dataclass(frozen=True, slots=True)
class Dial:
    """For each quality from LOWEST to HIGHEST: the threshold for ``complex_share``, and the share of the requests that
    the cloud would answer better which stays below it."""

    thresholds: tuple[float, ...]
    accepted: tuple[float, ...]


def complex_share(probabilities: Mapping[Label, float] | Mapping[LabelName, float]) -> float | None:
    """P(COMPLEX) / (P(COMPLEX) + P(MODERATE)); None where both are 0."""
    moderate, demanding = probabilities.get(Label.MODERATE, 0.0), probabilities.get(Label.COMPLEX, 0.0)
    return demanding / (moderate + demanding) if moderate + demanding > 0 else None


def dialled(decision: Decision, quality: int | None, dial: Dial | None) -> Decision:
    """The decision as it is at this quality; None: nobody asked for one. The reason says what came of it.

    Only MODERATE and COMPLEX are exchanged: how up to date an answer must be is no matter of quality. Where the decider
    gave no probabilities, its label stays. At LOWEST nothing is COMPLEX, with or without them.
    """
    if quality is None:
        return decision
    decision = dataclasses.replace(decision, quality=quality)
    if decision.label not in (Label.MODERATE, Label.COMPLEX):
        return decision
    if quality == LOWEST:
        return at_home(decision, quality)
    if dial is None:
        return _noted(decision, f"quality {quality} has no effect: there is no head with thresholds for it")
    threshold, share = dial.thresholds[quality], decision.complex_share
    if share is None:
        return _noted(decision, f"quality {quality} has no effect: the decider gave no probabilities")
    what = f"quality {quality}: COMPLEX from {threshold:.2g} on, this is {share:.2g}"
    wanted = Label.COMPLEX if share >= threshold else Label.MODERATE
    # A higher quality makes nothing MODERATE, nor a lower one COMPLEX: label and share may come from two models.
    towards = Label.COMPLEX if quality > NEUTRAL else Label.MODERATE
    if quality == NEUTRAL or wanted == decision.label or wanted is not towards:
        return _noted(decision, what)
    return _moved(decision, wanted, f"{what}, and would be {decision.label}")


def at_home(decision: Decision, quality: int | None) -> Decision:
    """The decision, which is not COMPLEX at LOWEST, whatever has made it so."""
    if quality is not None and decision.quality is None:
        decision = dataclasses.replace(decision, quality=quality)
    if quality != LOWEST or decision.label is not Label.COMPLEX:
        return decision
    return _moved(decision, Label.MODERATE, f"quality {LOWEST}: nothing is COMPLEX, and this would be")


def with_share(decision: Decision, probabilities: Mapping[Label, float]) -> Decision:
    """The decision with the share of COMPLEX in what the head says, where the classifier gave no probabilities."""
    if decision.complex_share is not None:
        return decision
    return dataclasses.replace(decision, complex_share=complex_share(probabilities))


def _noted(decision: Decision, note: str) -> Decision:
    return dataclasses.replace(decision, reason=f"{decision.reason}; {note}")


def _moved(decision: Decision, label: Label, note: str) -> Decision:
    """The decision with another label. It has no confidence: the owner's wish has decided it, not a belief."""
    moved = dataclasses.replace(decision, label=label, route=route_of(label), confidence=None, judged=decision.label)
    return _noted(moved, note)
