"""What each quality of the dial costs and brings, on labelled prompts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ai_router.routing.dial import HIGHEST, LOWEST, Dial, dialled
from ai_router.types import Decision, Label, LabelName


@dataclass(frozen=True, slots=True)
class QualityPoint:
    """One quality; shares in [0, 1]. The names of the fields are the keys of ``eval --json``.

    ``accepted``: the share of COMPLEX that stays at home by calibration, and ``kept_home`` the one here; None where
    nothing is COMPLEX. ``to_cloud``: of all prompts; ``needless``: of MODERATE, those among them. ``usd``: what 1,000
    of these prompts would cost at the cloud; None: no price is known.
    """

    quality: int
    threshold: float
    accepted: float
    accuracy: float
    to_cloud: float
    kept_home: float | None
    needless: float | None
    usd: float | None


def quality_curve(
    truths: Sequence[LabelName], decisions: Sequence[Decision], dial: Dial, usd: Sequence[float | None]
) -> list[QualityPoint]:
    """A point for each quality. ``decisions``: as they are without a dial; ``usd``: what each prompt costs if the cloud
    answers it. All of the same prompts in the same order; at least one."""
    return [_point(truths, decisions, dial, usd, quality) for quality in range(LOWEST, HIGHEST + 1)]


def _point(
    truths: Sequence[LabelName], decisions: Sequence[Decision], dial: Dial, usd: Sequence[float | None], quality: int
) -> QualityPoint:
    labels = [dialled(decision, quality, dial).label for decision in decisions]
    to_cloud = [label is Label.COMPLEX for label in labels]
    prices = [price for price, goes in zip(usd, to_cloud, strict=True) if goes]
    known = [price for price in prices if price is not None]
    return QualityPoint(
        quality=quality,
        threshold=dial.thresholds[quality],
        accepted=dial.accepted[quality],
        accuracy=_share([label == truth for label, truth in zip(labels, truths, strict=True)]) or 0.0,
        to_cloud=_share(to_cloud) or 0.0,
        kept_home=_share([not goes for goes, truth in zip(to_cloud, truths, strict=True) if truth is Label.COMPLEX]),
        needless=_share([goes for goes, truth in zip(to_cloud, truths, strict=True) if truth is Label.MODERATE]),
        usd=sum(known) / len(labels) * 1_000 if len(known) == len(prices) else None,
    )


def _share(cases: Sequence[bool]) -> float | None:
    return sum(cases) / len(cases) if cases else None


def quality_table(curve: Sequence[QualityPoint], cloud: str) -> str:
    """The curve as text. ``cloud``: who answers COMPLEX."""
    head = f"{'quality':>7} {'COMPLEX from':>12} {'accuracy':>8} {'to the cloud':>12} {'needless':>8} {'kept home':>9}"
    lines = [
        f"the dial (x-router-quality, QUALITY); the cloud is {cloud}:",
        f"{head} {'accepted':>8} {'USD / 1,000':>11}",
    ]
    for point in curve:
        start = "never" if point.quality == LOWEST else f"{point.threshold:.3f}"
        line = f"{point.quality:>7} {start:>12} {point.accuracy:>8.1%} {point.to_cloud:>12.1%}"
        shares = " ".join(
            f"{'-' if value is None else f'{value:.1%}':>{width}}"
            for value, width in ((point.needless, 8), (point.kept_home, 9))
        )
        usd = "-" if point.usd is None else f"{point.usd:.2f}"
        lines.append(f"{line} {shares} {point.accepted:>8.1%} {usd:>11}")
    return "\n".join(lines)


def plain_curve(curve: Sequence[QualityPoint]) -> list[Mapping[str, float | None]]:
    """The curve for ``eval --json``."""
    return [{name: getattr(point, name) for name in point.__slots__} for point in curve]
