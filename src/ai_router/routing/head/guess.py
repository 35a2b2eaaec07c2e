"""What the head says of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ai_router.types import Label


@dataclass(frozen=True, slots=True)
class Guess:
    """The likeliest label, and whether to rely on it.

    ``shares``: probability of each label, adding up to 1. ``confidence``: calibrated probability that ``label`` is what
    the classifier would have said; ``sure``: at or above the head's threshold, which comes from a stated risk.
    """

    label: Label
    shares: Mapping[Label, float]
    confidence: float
    sure: bool
    reason: str
