"""How good the head is on prompts as people and programs wrap them: a report for each family of dressings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ai_router.learning.dressing import Dressings, dressed_in
from ai_router.learning.evaluation import Prediction, Report, report
from ai_router.learning.examples import Example
from ai_router.routing.head.model import Guess, Head
from ai_router.routing.head.own_routes import NO_ROUTES, RouteModels
from ai_router.routing.prompt import last_user_text

UNDRESSED = "undressed"
"""The name of the report on the prompts as they are."""
TOLERANCE = 0.02
_SHOWN_CHARS = 76


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """The head on prompts in one family of dressings. ``worst``: the prompt that it was wrong about with the highest
    confidence, and what it said; empty if it was right about all."""

    report: Report
    worst: str


def dressed_reports(
    head: Head, examples: Sequence[Example], dressings: Dressings, year: int
) -> Mapping[str, FamilyReport]:
    """The head's figures for each family, and for the prompts as they are; the lowest accuracy first."""
    families = {UNDRESSED: examples}
    families |= {family: dressed_in(family, examples, dressings) for family in dressings.families}
    found = {name: _family_report(head, rows, year) for name, rows in families.items()}
    return dict(sorted(found.items(), key=lambda entry: entry[1].report.accuracy))


def mean_accuracy(families: Mapping[str, FamilyReport]) -> float:
    """The mean over the families; the undressed prompts do not count."""
    return statistics.fmean(found.report.accuracy for name, found in families.items() if name != UNDRESSED)


def right_where_sure(families: Mapping[str, FamilyReport]) -> float | None:
    """The share of right answers among all of which the head is sure; None if it is sure of none."""
    sure, right = 0.0, 0.0
    for report_of in (found.report for found in families.values()):
        answered = report_of.coverage * report_of.prompts
        sure += answered
        right += answered * (report_of.accuracy_sure or 0.0)
    return right / sure if sure else None


def why_worse_dressed(student: Mapping[str, FamilyReport], packaged: Mapping[str, FamilyReport]) -> str | None:
    """The reason not to install a student: it does worse on dressed prompts than the packaged head, beyond TOLERANCE.

    None: it does not. It is compared with the packaged head and not with the present one, so that many small steps do
    not add up. Pure.
    """
    accuracy, before = mean_accuracy(student), mean_accuracy(packaged)
    if accuracy < before - TOLERANCE:
        return f"of dressed prompts it has {accuracy:.1%} right, the packaged head {before:.1%}"
    sure, sure_before = right_where_sure(student), right_where_sure(packaged)
    if sure is not None and sure_before is not None and sure < sure_before - TOLERANCE:
        return f"of dressed prompts that it is sure of it has {sure:.1%} right, the packaged head {sure_before:.1%}"
    return None


def predict(head: Head, example: Example, year: int, own: RouteModels = NO_ROUTES) -> tuple[Guess, Prediction]:
    """The head's guess about an example, and the same as a prediction, with the time it took. ``own``: the owner's
    routes."""
    started = time.perf_counter()
    guess = head.guess(example.messages, year, own_routes=own)
    ms = (time.perf_counter() - started) * 1000
    if guess.own_match is not None and guess.own_match.matches:
        return guess, Prediction(guess.own_match.label, sure=guess.own_match.sure, ms=ms)
    return guess, Prediction(guess.label, guess.confidence, guess.probabilities, guess.sure, ms)


def dressed_table(families: Mapping[str, FamilyReport]) -> str:
    """A line for each family, and the mean."""
    width = max(map(len, families))
    head = f"{'':{width}} {'accuracy':>8} {'sure on':>8} {'right there':>11} {'p50 ms':>7} {'p99 ms':>7}"
    lines = [f"{head}  wrong with the highest confidence"]
    for name, found in families.items():
        of = found.report
        right = "-" if of.accuracy_sure is None else f"{of.accuracy_sure:.1%}"
        line = f"{name:{width}} {of.accuracy:>8.1%} {of.coverage:>8.1%} {right:>11}"
        lines.append(f"{line} {of.ms['p50']:>7.2f} {of.ms['p99']:>7.2f}  {found.worst}")
    return "\n".join([*lines, f"mean accuracy of the {len(families) - 1} families: {mean_accuracy(families):.1%}"])


def _family_report(head: Head, examples: Sequence[Example], year: int) -> FamilyReport:
    guesses, predictions = zip(*(predict(head, example, year) for example in examples), strict=True)
    wrong = [
        (guess.confidence, guess.label, last_user_text(example.messages))
        for guess, example in zip(guesses, examples, strict=True)
        if guess.label != example.label
    ]
    worst = ""
    if wrong:
        confidence, label, text = max(wrong)
        worst = f"{label} {confidence:.2f}: {_shortened(' '.join(text.split()))}"
    return FamilyReport(report([example.label for example in examples], predictions), worst)


def _shortened(text: str) -> str:
    half = _SHOWN_CHARS // 2
    return text if len(text) <= _SHOWN_CHARS else f"{text[:half]} ... {text[-half:]}"
