"""How good a decider is, from what it said of labelled prompts; how good a difficulty score is. Pure."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ai_router.routing.verdict import LABELS
from ai_router.types import Label, LabelName

RISKS = (0.01, 0.02, 0.03, 0.05)
_CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """A decider's answer for one prompt. ``label`` is None where it failed; ``probabilities`` of the labels if it has
    them; ``sure``: whether it would have decided by itself; ``ms`` it took."""

    label: LabelName | None
    confidence: float | None = None
    probabilities: Mapping[Label, float] | None = None
    sure: bool = True
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Of one label: prompts that have it, precision (None if it was never said) and recall (None if nothing has it)."""

    support: int
    precision: float | None
    recall: float | None
    auroc: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """All figures that ``eval`` prints of one decider; shares in [0, 1], times in milliseconds.

    The names of the fields are the keys of ``eval --json``.
    """

    prompts: int
    failed: int
    accuracy: float
    coverage: float
    """The share on which it was sure; ``accuracy_sure`` is the accuracy there."""
    accuracy_sure: float | None
    classes: Mapping[LabelName, ClassReport]
    confusion: Mapping[LabelName, Mapping[str, int]]
    coverage_at_risk: Mapping[float, float]
    calibration_error: float | None
    ms: Mapping[str, float]


def report(truths: Sequence[LabelName], predictions: Sequence[Prediction]) -> Report:
    """Compare predictions with the true labels, of the same prompts in the same order; at least one."""
    right = [prediction.label == truth for truth, prediction in zip(truths, predictions, strict=True)]
    sure = [prediction.sure and prediction.label is not None for prediction in predictions]
    answered = sum(sure)
    confident = [
        (prediction.confidence, hit)
        for prediction, hit in zip(predictions, right, strict=True)
        if prediction.confidence is not None
    ]
    labels = [*LABELS, *sorted({*truths} - {*LABELS})]
    return Report(
        prompts=len(predictions),
        failed=sum(prediction.label is None for prediction in predictions),
        accuracy=sum(right) / len(right),
        coverage=answered / len(predictions),
        accuracy_sure=sum(hit for hit, one in zip(right, sure, strict=True) if one) / answered if answered else None,
        classes={label: _class_report(label, truths, predictions) for label in labels},
        confusion={label: _confusion_row(label, truths, predictions, labels) for label in labels},
        coverage_at_risk={risk: coverage_at(risk, confident, len(predictions)) for risk in RISKS} if confident else {},
        calibration_error=expected_calibration_error(confident) if confident else None,
        ms=percentiles([prediction.ms for prediction in predictions if prediction.ms is not None]),
    )


def coverage_at(risk: float, confident: Sequence[tuple[float, bool]], total: int) -> float:
    """The largest share of all that can be answered, most confident first, with at most ``risk`` of it wrong."""
    best = wrong = 0
    for count, (_, hit) in enumerate(sorted(confident, key=lambda pair: -pair[0]), 1):
        wrong += not hit
        if wrong <= risk * count:
            best = count
    return best / total


def expected_calibration_error(confident: Sequence[tuple[float, bool]]) -> float:
    """Mean distance between confidence and accuracy over ten bins of confidence, weighted by their size."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in confident:
        bins.setdefault(min(int(confidence * _CALIBRATION_BINS), _CALIBRATION_BINS - 1), []).append((confidence, hit))
    gaps = (
        len(content)
        * abs(statistics.fmean(confidence for confidence, _ in content) - statistics.fmean(hit for _, hit in content))
        for content in bins.values()
    )
    return sum(gaps) / len(confident)


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The probability that a positive scores above a negative, ties counting half; None if there are not both."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ranks, index = [0.0] * len(scores), 0
    while index < len(order):
        end = index
        while end + 1 < len(order) and scores[order[end + 1]] == scores[order[index]]:
            end += 1
        for position in range(index, end + 1):
            ranks[order[position]] = (index + end) / 2 + 1
        index = end + 1
    count = sum(positive)
    if not 0 < count < len(scores):
        return None
    total = sum(rank for rank, one in zip(ranks, positive, strict=True) if one)
    return (total - count * (count + 1) / 2) / (count * (len(scores) - count))


def percentiles(values: Sequence[float]) -> Mapping[str, float]:
    """p50, p90, p99 and max; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in at.items()} | {
        "max": ordered[-1]
    }


def always_primary(truths: Sequence[LabelName]) -> list[Prediction]:
    """A baseline: everything is MODERATE."""
    return [Prediction(Label.MODERATE) for _ in truths]


def by_length(truths: Sequence[LabelName], lengths: Sequence[int]) -> list[Prediction]:
    """A baseline: COMPLEX from a length on. The length is the best for these very prompts, which flatters it."""
    best, limit, hits = -1, 0, 0
    for candidate in sorted(set(lengths)):
        hits = sum(
            truth == (Label.COMPLEX if length >= candidate else Label.MODERATE)
            for truth, length in zip(truths, lengths, strict=True)
        )
        if hits > best:
            best, limit = hits, candidate
    return [Prediction(Label.COMPLEX if length >= limit else Label.MODERATE) for length in lengths]


def at_random(truths: Sequence[LabelName], seed: int = 0) -> list[Prediction]:
    """A baseline: labels drawn as often as they occur here."""
    rng = random.Random(seed)  # noqa: S311 - a baseline, not a secret
    return [Prediction(rng.choice(truths)) for _ in truths]


def performance_gap_recovered(scores: Sequence[float], weak: Sequence[bool], strong: Sequence[bool]) -> float:
    """APGR (RouteLLM, Ong et al. 2024): the mean, over all shares of strong calls, of the recovered part of the gap.

    ``scores``: higher means rather the strong model. 0.5 is what random scores give, 1 the ideal, which
    calls the strong model only where it helps. Raises ValueError if the strong model is not better.
    """
    gap = sum(strong) - sum(weak)
    if gap <= 0:
        raise ValueError("the strong model is not better than the weak one here")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    recovered, area = 0, 0.0
    for index in order:
        before = recovered
        recovered += strong[index] - weak[index]
        area += (before + recovered) / 2
    return area / (gap * len(order))


def ideal_scores(weak: Sequence[bool], strong: Sequence[bool]) -> list[float]:
    """What an oracle would say: the strong model where only it is right, last where only the weak one is."""
    return [float(s) - float(w) for w, s in zip(weak, strong, strict=True)]


def _class_report(label: LabelName, truths: Sequence[LabelName], predictions: Sequence[Prediction]) -> ClassReport:
    claimed = sum(prediction.label == label for prediction in predictions)
    support = sum(truth == label for truth in truths)
    both = sum(prediction.label == label == truth for truth, prediction in zip(truths, predictions, strict=True))
    scored = [
        (prediction.probabilities[Label(label)], truth == label)
        for truth, prediction in zip(truths, predictions, strict=True)
        if prediction.probabilities and label in prediction.probabilities
    ]
    return ClassReport(
        support=support,
        precision=both / claimed if claimed else None,
        recall=both / support if support else None,
        auroc=auroc([score for score, _ in scored], [one for _, one in scored]) if scored else None,
    )


def _confusion_row(
    label: LabelName, truths: Sequence[LabelName], predictions: Sequence[Prediction], labels: Sequence[LabelName]
) -> Mapping[str, int]:
    counts = Counter(
        str(prediction.label) if prediction.label else "failed"
        for truth, prediction in zip(truths, predictions, strict=True)
        if truth == label
    )
    return {column: counts.get(column, 0) for column in (*labels, "failed")}
