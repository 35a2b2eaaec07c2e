"""``route``, ``eval`` and ``replay``: explaining, measuring and repeating decisions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson
from prometheus_client import CollectorRegistry

from ai_router.app.deciding import build_classifier, build_fast_path, build_limiter
from ai_router.cli.common import die, registry_of, request_of, settings_or_die, upstream_client
from ai_router.cli.tables import difficulty_table, replay_table, reports_table
from ai_router.dispatch.plan import Plan, plan_answer
from ai_router.errors import UpstreamError
from ai_router.http.calls import CancelScope, UpstreamCall
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
    Outcomes,
    StoredSession,
    read_examples,
    read_outcomes,
    read_sessions,
)
from ai_router.learning.replay import policy_named
from ai_router.learning.replay import replay as replay_sessions
from ai_router.observability.metrics import RoutingMetrics
from ai_router.routing.classifier import Classifier
from ai_router.routing.head.model import Guess, Head
from ai_router.routing.head.store import HeadStore
from ai_router.routing.monitor import Monitor
from ai_router.routing.prompt import last_user_text
from ai_router.routing.router import Router, Undecided
from ai_router.settings import Settings
from ai_router.types import Decision


@click.command()
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as one JSON object.")
def route(text: str, *, as_json: bool) -> None:
    """Decide where TEXT would be answered, without answering it."""
    settings = settings_or_die()
    registry = registry_of(settings)
    request = request_of(settings, [{"role": "user", "content": text}])
    with _classifier(settings) as classifier:
        fast = None
        if settings.fast_routing:
            metrics = RoutingMetrics(CollectorRegistry())
            fast = build_fast_path(settings, HeadStore(settings.data_dir), Monitor(1.0), metrics)
        router = Router(registry, classifier, fast, build_limiter(settings, registry))
        found = router.decide_at_once(request)
        decision = (
            router.determine_route(request, found, CancelScope().new_call) if isinstance(found, Undecided) else found
        )
    plan = plan_answer(decision, registry, cloud_fallback=settings.cloud_fallback)
    guess = found.guess if isinstance(found, Undecided) else None
    if as_json:
        click.echo(orjson.dumps(_decision_document(decision, plan, guess), option=orjson.OPT_INDENT_2))
        return
    confidence = "" if decision.confidence is None else f", confidence {decision.confidence:.2f}"
    click.echo(f"{decision.label} -> {decision.route} (decided by {decision.decided_by}{confidence})")
    click.echo(decision.reason)
    if guess is not None:
        click.echo(f"the fast path was not sure: {guess.reason}")
    if plan.note:
        click.echo(plan.note)


@click.command("eval")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all figures as one JSON object.")
@click.option("--errors", is_flag=True, help="Also list what the head gets wrong.")
def evaluate(files: Sequence[Path], *, as_json: bool, errors: bool) -> None:
    """Measure the deciders on labelled prompts: JSON lines with text (or messages) and label.

    The classifier is asked too where ROUTER_URL names one. Rows with weak and strong instead of a label measure
    difficulty routing.
    """
    settings = settings_or_die()
    head = HeadStore(settings.data_dir).current
    try:
        examples = read_examples(files)
        rows = read_outcomes(files)
    except ExamplesError as problem:
        die(str(problem))
    if not examples and not rows:
        die("no row has a label, or weak and strong")
    document: dict[str, Any] = {}
    year = time.localtime().tm_year
    if examples:
        with _classifier(settings) as classifier:
            guesses, said = _said(examples, head, classifier, settings, year)
        reports = _reports(examples, said)
        document["deciders"] = {name: dataclasses.asdict(found) for name, found in reports.items()}
        if not as_json:
            click.echo(reports_table(reports))
        if errors:
            _list_errors(examples, guesses)
    if rows:
        document["difficulty"] = _difficulty(rows, head, year)
        if not as_json:
            click.echo(difficulty_table(document["difficulty"], len(rows)))
    if as_json:
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--policy",
    default="cascade",
    show_default=True,
    help="cascade[:CONFIDENCE], head, classifier, primary or recorded.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def replay(folder: Path, policy: str, *, as_json: bool) -> None:
    """Decide the sessions stored in FOLDER again and report what would have changed in route, latency and cost."""
    head = HeadStore(settings_or_die().data_dir).current

    def guess_of(session: StoredSession) -> Guess:
        return head.guess(session.messages, session.year)

    try:
        chosen = policy_named(policy, guess_of)
    except ValueError as problem:
        die(str(problem))
    result = replay_sessions(read_sessions(folder), chosen)
    if as_json:
        moved = [{"from": here, "to": there, "sessions": n} for (here, there), n in sorted(result.moved.items())]
        click.echo(orjson.dumps({**_plain(result), "moved": moved}, option=orjson.OPT_INDENT_2))
        return
    click.echo(replay_table(policy, result))


@contextmanager
def _classifier(settings: Settings) -> Iterator[Classifier | None]:
    """The classifier, not probed: a command asks it in the configured mode."""
    with upstream_client() as client:
        classifier = build_classifier(settings, registry_of(settings), client)
        if classifier is None:
            yield None
            return
        classifier.stop_waiting()
        try:
            yield classifier
        finally:
            classifier.close()


def _said(
    examples: Sequence[Example], head: Head, classifier: Classifier | None, settings: Settings, year: int
) -> tuple[list[Guess], dict[str, list[Prediction]]]:
    """What the head says, what the classifier says, and what they come to together."""
    guesses, heads, asked, together = [], [], [], []
    for example in examples:
        started = time.perf_counter()
        guess = head.guess(example.messages, year)
        mine = Prediction(
            guess.label, guess.confidence, guess.shares, guess.sure, (time.perf_counter() - started) * 1000
        )
        guesses.append(guess)
        heads.append(mine)
        if classifier is None:
            continue
        theirs = _ask(classifier, settings, example)
        asked.append(theirs)
        stands_in = dataclasses.replace(theirs, label=guess.label) if theirs.label is None else theirs
        together.append(mine if guess.sure else dataclasses.replace(stands_in, ms=(mine.ms or 0) + (theirs.ms or 0)))
    said = {"head": heads}
    return guesses, {**said, "classifier": asked, "cascade": together} if classifier is not None else said


def _ask(classifier: Classifier, settings: Settings, example: Example) -> Prediction:
    started = time.perf_counter()
    try:
        verdict = classifier.classify(request_of(settings, example.messages), UpstreamCall)
    except UpstreamError:
        return Prediction(None, ms=(time.perf_counter() - started) * 1000)
    return Prediction(verdict.label, verdict.confidence, ms=(time.perf_counter() - started) * 1000)


def _reports(examples: Sequence[Example], said: dict[str, list[Prediction]]) -> dict[str, Report]:
    truths = [example.label for example in examples]
    lengths = [len(last_user_text(example.messages)) for example in examples]
    baselines = {
        "always primary": always_primary(truths),
        "length only": by_length(truths, lengths),
        "random": at_random(truths),
    }
    return {name: report(truths, words) for name, words in {**said, **baselines}.items()}


def _list_errors(examples: Sequence[Example], guesses: Sequence[Guess]) -> None:
    for example, guess in zip(examples, guesses, strict=True):
        if guess.label != example.label:
            sure = "sure" if guess.sure else "unsure"
            text = " ".join(last_user_text(example.messages).split())[:100]
            click.echo(f"{example.label:8} taken for {guess.label:8} {guess.confidence:.2f} {sure:6} {text}", err=True)


def _difficulty(rows: Sequence[Outcomes], head: Head, year: int) -> dict[str, float]:
    """APGR of the head's difficulty score, if it has one, and of what it has to be compared with."""
    weak, strong = [row.weak for row in rows], [row.strong for row in rows]
    scores = {
        "length": [float(len(last_user_text(row.messages))) for row in rows],
        "ideal": ideal_scores(weak, strong),
    }
    told = [head.difficulty(row.messages, year) for row in rows]
    known = [score for score in told if score is not None]
    if len(known) == len(rows):
        scores = {"head": known, **scores}
    return {name: performance_gap_recovered(values, weak, strong) for name, values in scores.items()} | {"random": 0.5}


def _decision_document(decision: Decision, plan: Plan, guess: Guess | None) -> dict[str, Any]:
    """The decision with what it leads to, numbers rounded."""
    answered_by = [f"{candidate.backend.name}/{candidate.model}" for candidate in plan.candidates]
    unsure = guess.reason if guess is not None else None
    return {**_plain(decision), "answered_by": answered_by, "note": plan.note, "fast_path_unsure": unsure}


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as a document, floats rounded."""
    return {
        field.name: round(found, 4) if isinstance(found := getattr(value, field.name), float) else found
        for field in dataclasses.fields(value)
    }
