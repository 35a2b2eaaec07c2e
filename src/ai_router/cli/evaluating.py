"""``eval``: measuring the deciders on labelled prompts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from ai_router.cli.common import exit_with, labels_of, opened_classifier, registry_of, request_of, settings_or_exit
from ai_router.config import Settings
from ai_router.dispatch.dry_run import estimated_usd
from ai_router.errors import UpstreamError
from ai_router.http.calls import UpstreamCall
from ai_router.learning.dressed_evaluation import dressed_reports, dressed_table, predict
from ai_router.learning.dressing import dressings_to_measure_with
from ai_router.learning.evaluation import (
    Prediction,
    Report,
    always_primary,
    at_random,
    by_length,
    ideal_scores,
    performance_gap_recovered,
    report,
)
from ai_router.learning.examples import (
    Example,
    ExamplesError,
    ModelComparison,
    read_comparisons,
    read_examples,
)
from ai_router.learning.quality_curve import QualityPoint, plain_curve, quality_curve, quality_table
from ai_router.routing.classifier import Classifier
from ai_router.routing.dial import Dial
from ai_router.routing.fast_path import head_decision
from ai_router.routing.head.model import Guess, Head
from ai_router.routing.head.own_store import OwnRoutesStore
from ai_router.routing.head.store import HeadStore
from ai_router.routing.prompt import last_user_text
from ai_router.routing.verdict import LABELS
from ai_router.types import Label


@click.command("eval")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all figures as one JSON object.")
@click.option("--errors", is_flag=True, help="Also list what the head gets wrong.")
@click.option("--dressed", is_flag=True, help="Measure the head on the prompts as people and programs wrap them.")
def evaluate(files: Sequence[Path], *, as_json: bool, errors: bool, dressed: bool) -> None:
    """Measure the deciders on labelled prompts: JSON lines with text (or messages) and label.

    With --dressed the head only, once for each family of dressings (quotes, templates, mails, blocks of agents...).
    The classifier is asked too where ROUTER_URL names one. Rows with weak and strong instead of a label measure
    difficulty routing.
    """
    settings = settings_or_exit()
    head = HeadStore(settings.data_dir).current
    try:
        examples = read_examples(files, labels_of(settings).names.names)
        rows = read_comparisons(files)
    except ExamplesError as problem:
        exit_with(str(problem))
    if not examples and not rows:
        exit_with("no row has a label, or weak and strong")
    document: dict[str, Any] = {}
    year = time.localtime().tm_year
    # The sentence vectors load in the background: the times of the prompts are not to have that in them.
    head.guess([{"role": "user", "content": "hello"}], year, all_stages=True)
    if dressed:
        _evaluate_dressed(head, examples, year, as_json=as_json)
        return
    if examples:
        document |= _evaluate_examples(settings, examples, head, year, as_json=as_json, errors=errors)
    if rows:
        document["difficulty"] = _difficulty(rows, head, year)
        if not as_json:
            click.echo(difficulty_table(document["difficulty"], len(rows)))
    if as_json:
        click.echo(_json(document))


def _evaluate_examples(
    settings: Settings, examples: Sequence[Example], head: Head, year: int, *, as_json: bool, errors: bool
) -> dict[str, Any]:
    """Print how good the deciders are, unless ``as_json``; the same as values of the document."""
    with opened_classifier(settings) as classifier:
        guesses, predictions = _predictions(examples, head, classifier, settings, year)
    reports = _reports(examples, predictions)
    document: dict[str, Any] = {"deciders": {name: dataclasses.asdict(found) for name, found in reports.items()}}
    lines = [reports_table(reports)]
    # An owner's route is not for the dial to move.
    movable = [(one, guess) for one, guess in zip(examples, guesses, strict=True) if one.label in LABELS]
    if head.dial is not None and movable:
        cloud, curve = _curve(settings, movable, head.dial)
        document["quality"] = plain_curve(curve)
        lines += ["", quality_table(curve, cloud)]
    if not as_json:
        click.echo("\n".join(lines))
    if errors:
        _list_errors(examples, guesses)
    return document


def _curve(settings: Settings, judged: Sequence[tuple[Example, Guess]], dial: Dial) -> tuple[str, list[QualityPoint]]:
    """Who answers COMPLEX, and the head's curve of the dial with that one's prices."""
    cloud = registry_of(settings).chains[Label.COMPLEX.lower()][0]
    usd = [estimated_usd(cloud, request_of(settings, example.messages)) for example, _ in judged]
    decisions = [head_decision(guess, guess.reason) for _, guess in judged]
    truths = [example.label for example, _ in judged]
    return cloud.full_name, quality_curve(truths, decisions, dial, usd)


def _evaluate_dressed(head: Head, examples: Sequence[Example], year: int, *, as_json: bool) -> None:
    if not examples:
        exit_with("no row has a label")
    families = dressed_reports(head, examples, dressings_to_measure_with(), year)
    document = {"dressed": {name: dataclasses.asdict(found) for name, found in families.items()}}
    click.echo(_json(document) if as_json else dressed_table(families))


def _json(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def _predictions(
    examples: Sequence[Example], head: Head, classifier: Classifier | None, settings: Settings, year: int
) -> tuple[list[Guess], dict[str, list[Prediction]]]:
    """The head's guesses, and predictions by decider: head and, if there is a classifier, classifier and cascade.

    The cascade is what the router does: the head where it is sure, else the classifier.
    """
    own = OwnRoutesStore(settings.data_dir)
    own.want(labels_of(settings).digests)
    guesses, head_predictions, classifier_predictions, cascade_predictions = [], [], [], []
    for example in examples:
        guess, from_head = predict(head, example, year, own.current)
        guesses.append(guess)
        head_predictions.append(from_head)
        if classifier is None:
            continue
        from_classifier = _ask(classifier, settings, example)
        classifier_predictions.append(from_classifier)
        cascade_predictions.append(from_head if from_head.sure else _cascaded(from_head, from_classifier))
    predictions = {"head": head_predictions}
    if classifier is not None:
        predictions |= {"classifier": classifier_predictions, "cascade": cascade_predictions}
    return guesses, predictions


def _cascaded(head: Prediction, classifier: Prediction) -> Prediction:
    """The classifier's word, or the head's where the classifier failed; it took the time of both."""
    label = head.label if classifier.label is None else classifier.label
    return dataclasses.replace(classifier, label=label, ms=(head.ms or 0) + (classifier.ms or 0))


def _ask(classifier: Classifier, settings: Settings, example: Example) -> Prediction:
    started = time.perf_counter()
    try:
        verdict = classifier.classify(request_of(settings, example.messages), UpstreamCall)
    except UpstreamError:
        return Prediction(None, ms=(time.perf_counter() - started) * 1000)
    shares = {Label(label): share for label, share in verdict.probabilities.items() if label in LABELS}
    return Prediction(verdict.label, verdict.confidence, shares or None, ms=(time.perf_counter() - started) * 1000)


def _reports(examples: Sequence[Example], predictions: dict[str, list[Prediction]]) -> dict[str, Report]:
    truths = [example.label for example in examples]
    lengths = [len(last_user_text(example.messages)) for example in examples]
    baselines = {
        "always primary": always_primary(truths),
        "length only": by_length(truths, lengths),
        "random": at_random(truths),
    }
    return {name: report(truths, words) for name, words in {**predictions, **baselines}.items()}


def _list_errors(examples: Sequence[Example], guesses: Sequence[Guess]) -> None:
    for example, guess in zip(examples, guesses, strict=True):
        if guess.label != example.label:
            sure = "sure" if guess.sure else "unsure"
            text = " ".join(last_user_text(example.messages).split())[:100]
            click.echo(f"{example.label:8} taken for {guess.label:8} {guess.confidence:.2f} {sure:6} {text}", err=True)


def _difficulty(rows: Sequence[ModelComparison], head: Head, year: int) -> dict[str, float]:
    """APGR of the head's difficulty score, if it has one, and of its baselines."""
    weak, strong = [row.weak for row in rows], [row.strong for row in rows]
    scores = {
        "length": [float(len(last_user_text(row.messages))) for row in rows],
        "ideal": ideal_scores(weak, strong),
    }
    difficulties = [head.difficulty(row.messages, year) for row in rows]
    known = [score for score in difficulties if score is not None]
    if len(known) == len(rows):
        scores = {"head": known, **scores}
    return {name: performance_gap_recovered(values, weak, strong) for name, values in scores.items()} | {"random": 0.5}


def reports_table(reports: Mapping[str, Report]) -> str:
    """The reports as text: a line for each decider, then a table for each."""
    return "\n".join(_report_lines(reports))


def _report_lines(reports: Mapping[str, Report]) -> Iterator[str]:
    first = next(iter(reports.values()))
    support = ", ".join(f"{label} {found.support}" for label, found in first.classes.items())
    yield f"{first.prompts} prompts: {support}"
    yield ""
    yield f"{'':15} {'accuracy':>8} {'sure on':>8} {'right there':>11} {'ECE':>6} {'p50 ms':>8} {'p99 ms':>8}"
    for name, found in reports.items():
        times = found.ms
        yield (
            f"{name:15} {_share(found.accuracy):>8} {_share(found.coverage):>8} {_share(found.accuracy_sure):>11} "
            f"{'-' if found.calibration_error is None else f'{found.calibration_error:.3f}':>6} "
            f"{_ms(times.get('p50')):>8} {_ms(times.get('p99')):>8}"
        )
    for name, found in reports.items():
        yield ""
        yield from _details(name, found)


def _details(name: str, found: Report) -> Iterator[str]:
    yield f"{name}:" + (f" {found.failed} without an answer" if found.failed else "")
    columns = (*found.classes, "failed") if found.failed else tuple(found.classes)
    yield f"  {'truth, said':12}" + "".join(f"{column:>10}" for column in columns) + "   precision  recall   AUROC"
    for label, of_class in found.classes.items():
        cells = "".join(f"{found.confusion[label][column]:>10}" for column in columns)
        area = "-" if of_class.auroc is None else f"{of_class.auroc:.3f}"
        yield f"  {label:12}{cells}   {_share(of_class.precision):>9} {_share(of_class.recall):>7} {area:>7}"
    if found.coverage_at_risk:
        shares = ", ".join(f"{share:.1%} at {risk:.0%}" for risk, share in found.coverage_at_risk.items())
        yield f"  coverage at risk: {shares}"


def difficulty_table(figures: Mapping[str, float], prompts: int) -> str:
    """The APGR of each score of difficulty, as text."""
    lines = [f"difficulty routing, {prompts} prompts with a weak and a strong model's success (APGR, chance is 0.5):"]
    return "\n".join([*lines, *(f"  {name:8} {value:.3f}" for name, value in figures.items())])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
