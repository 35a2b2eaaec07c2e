"""Measuring difficulty routing: how much of the strong model's lead a score buys back for how many strong calls.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence


def performance_gap_recovered(scores: Sequence[float], weak: Sequence[bool], strong: Sequence[bool]) -> float:
    """APGR (RouteLLM, Ong et al. 2024): the mean, over all shares of strong calls, of the recovered part of the gap.

    ``scores``: higher means rather the strong model. 0.5 is what chance gives, 1 the ideal that pays only where it
    helps.
    """
    gap = sum(strong) - sum(weak)
    if gap <= 0:
        raise ValueError("the strong model is not better than the weak one here")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    gained, area = 0, 0.0
    for index in order:
        before = gained
        gained += strong[index] - weak[index]
        area += (before + gained) / 2
    return area / (gap * len(order))


def ideal_scores(weak: Sequence[bool], strong: Sequence[bool]) -> list[float]:
    """What an oracle would say: the strong model where only it is right, last where only the weak one is."""
    return [float(s) - float(w) for w, s in zip(weak, strong, strict=True)]
