"""``learn``: making a head from files of examples, or from what the classifier has decided here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ai_router.cli.common import exit_with, settings_or_exit
from ai_router.cli.feedback_examples import FEEDBACK_WEIGHTS, feedback_examples
from ai_router.cli.learning_classifier import learn_classifier
from ai_router.cli.learning_routes import learn_own_routes
from ai_router.learning.distillation import (
    SOURCE,
    Changes,
    HeldOutResult,
    changes,
    evaluate_head,
    examples_from_sessions,
    install_head,
    why_not_install,
    why_not_told,
)
from ai_router.learning.dressed_evaluation import dressed_reports, why_worse_dressed
from ai_router.learning.dressing import (
    Dressings,
    dressed_examples,
    dressings_to_measure_with,
    read_dressings,
)
from ai_router.learning.evaluation import performance_gap_recovered
from ai_router.learning.examples import (
    Example,
    ExamplesError,
    packaged_dressings,
    packaged_files,
    read_comparisons,
    read_examples,
    read_sessions,
)
from ai_router.routing.head.asking import AskModel
from ai_router.routing.head.features import excerpt_of
from ai_router.routing.head.model import Head
from ai_router.routing.head.store import (
    HeadStore,
    packaged_encoder,
    packaged_head,
    packaged_slow_models,
    unpack_head,
)
from ai_router.routing.verdict import LABELS

if TYPE_CHECKING:
    from ai_router.learning.training import TrainedHead

PUBLIC_WEIGHT = 0.4
"""The weight of examples that the user names: a public data set has thousands of rows in one style."""

EXAMINE_EVERY = 8
"""Of 658 examples: in all families of dressings, two heads take two minutes for so many."""


@click.command()
@click.option(
    "--from",
    "paths",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A file of examples, or a folder of such files, in addition to the package's own. Repeatable.",
)
@click.option("--from-sessions", is_flag=True, help="Learn what the classifier decided in SESSION_DIR.")
@click.option("--classifier", is_flag=True, help="Learn what the probabilities of a decision model are worth.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the head here; default: DATA_DIR.")
@click.option(
    "--risk",
    default=0.03,
    show_default=True,
    type=click.FloatRange(0.001, 0.5),
    help="Wrong at most so often where it is sure.",
)
@click.option(
    "--encoder-from",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="First make the encoder from the model in this folder (slow; see docs/routing.md).",
)
def learn(
    paths: Sequence[Path],
    *,
    from_sessions: bool,
    classifier: bool,
    out: Path | None,
    risk: float,
    encoder_from: Path | None,
) -> None:
    """Learn the routes of the catalogue ([routes]) from their examples, in seconds.

    With --from or --from-sessions: make a head. A running router takes up all of these by itself.
    """
    if from_sessions + bool(paths) + classifier > 1:
        exit_with("say one of --from FILES, --from-sessions and --classifier")
    try:
        if from_sessions:
            _learn_from_sessions(out, risk)
        elif classifier:
            learn_classifier(out)
        elif paths:
            _learn_from_files(paths, out, risk, encoder_from)
        else:
            learn_own_routes(out)
    except (ExamplesError, FileNotFoundError) as problem:
        exit_with(str(problem))
    except ModuleNotFoundError as problem:
        exit_with(f"learning needs the package {problem.name}: pip install 'ai-router[learn]'")


def _learn_from_files(paths: Sequence[Path], out: Path | None, risk: float, encoder_from: Path | None) -> None:
    from ai_router.learning.asks import train_ask_model
    from ai_router.learning.fitting import fit_difficulty, held_out_difficulty
    from ai_router.learning.networks import KnownVectors
    from ai_router.learning.training import is_for_calibration, train_head

    example_files = [
        path for source in paths for path in (sorted(source.glob("*.jsonl")) if source.is_dir() else [source])
    ]
    examples, calibration_sources = own_examples()
    others = read_examples(example_files)
    everything = [*examples, *others]
    weights = {example.source: PUBLIC_WEIGHT for example in others}
    started, year = time.monotonic(), time.localtime().tm_year
    dressings = own_dressings(examples)
    fitting = [example for example in everything if not is_for_calibration(example, calibration_sources)]
    vectors = KnownVectors(packaged_slow_models().vectors)
    asks = train_ask_model(
        [example for example in fitting if example.source not in weights], dressings.split()[0], vectors
    )
    click.echo(f"the model that finds the ask is fitted ({time.monotonic() - started:.0f} s)")
    if encoder_from is not None:
        _make_encoder(encoder_from, fitting, weights, dressings, asks)
    comparisons = read_comparisons(example_files)
    difficulty = None
    if comparisons:
        excerpts = [excerpt_of(row.messages, asks.find) for row in comparisons]
        weak, strong = [row.weak for row in comparisons], [row.strong for row in comparisons]
        difficulty = fit_difficulty(excerpts, weak, strong, year)
        held_out, scores = held_out_difficulty(excerpts, weak, strong, year)
        apgr = performance_gap_recovered(scores, [weak[i] for i in held_out], [strong[i] for i in held_out])
        click.echo(f"difficulty: APGR {apgr:.3f} on a fifth, fitted on the rest; fitted anew on all {len(excerpts)}")
    trained = train_head(
        everything,
        packaged_encoder(),
        vectors,
        asks,
        dressings,
        year=year,
        weights=weights,
        calibration_sources=calibration_sources,
        risk=risk,
        difficulty=difficulty,
        metadata={"sources": sorted({example.source for example in everything})},
    )
    _print_result(trained, time.monotonic() - started)
    if out is None:
        click.echo(f"installed as {install_head(trained.content, settings_or_exit().data_dir)}")
        return
    out.write_bytes(trained.content)
    click.echo(f"written to {out}")


def _learn_from_sessions(out: Path | None, risk: float) -> None:
    from ai_router.learning.networks import KnownVectors
    from ai_router.learning.training import train_head

    settings = settings_or_exit()
    split = examples_from_sessions(read_sessions(settings.session_path))
    click.echo(f"{len(split.training)} decisions of the classifier to learn from, {len(split.held_out)} to examine on")
    told = [example for example in feedback_examples(settings.usage_database) if example.label in LABELS]
    if told:
        click.echo(f"{len(told)} verdicts of people beside them")
    if not (split.training and split.held_out) and not told:
        exit_with(f"{settings.session_path} holds too few decisions of the classifier")
    present, year = HeadStore(settings.data_dir).current, time.localtime().tm_year
    examples, calibration_sources = own_examples()
    trained = train_head(
        [*examples, *split.training, *told],
        packaged_encoder(),
        KnownVectors(packaged_slow_models().vectors),
        present.asks,
        own_dressings(examples),
        year=year,
        weights=FEEDBACK_WEIGHTS,
        calibration_sources=calibration_sources,
        risk=risk,
        start=present,
        difficulty=present.difficulty_model,
        metadata={"sources": ["package", SOURCE]},
    )
    student = unpack_head(trained.content, packaged_slow_models())
    problem = _examined(present, student, split.held_out, told, year, risk)
    if problem is None:
        floors = examples_to_examine_dressed(examples, calibration_sources)
        dressed = [
            dressed_reports(head, floors, dressings_to_measure_with(), year) for head in (student, packaged_head())
        ]
        problem = why_worse_dressed(*dressed)
    if problem is not None:
        click.echo(f"not installed, the present head stays: {problem}")
        raise SystemExit(1)
    if out is not None:
        out.write_bytes(trained.content)
        click.echo(f"written to {out}")
    else:
        path = install_head(trained.content, settings.data_dir)
        click.echo(f"installed as {path}; the one before it is kept beside it")


def _examined(
    present: Head, student: Head, held_out: Sequence[Example], told: Sequence[Example], year: int, risk: float
) -> str | None:
    """Say what changes; why not to install the student, None if it may be installed."""
    said = None
    if told:
        said = changes(present, student, told, year)
        present_right, student_right = said.right
        click.echo(
            f"verdicts of people: the present head is right about {present_right} of {said.cases}, "
            f"the new one about {student_right}"
        )
    if not held_out:
        return "there is nothing to examine it on" if said is None else why_not_told(said)
    before, after = evaluate_head(present, held_out, year), evaluate_head(student, held_out, year)
    click.echo(f"the present head: {_summary(before)}")
    click.echo(f"the new one:      {_summary(after)}")
    click.echo(_moves(changes(present, student, held_out, year)))
    return why_not_install(before, after, risk)


def _moves(found: Changes) -> str:
    """How many of the cases have another label now, the most frequent change first."""
    if not found.moved:
        return f"of {found.cases} decisions none changes"
    moves = sorted(found.moved.items(), key=lambda move: (-move[1], move[0]))
    listed = ", ".join(f"{old} -> {new} {count}" for (old, new), count in moves)
    return f"of {found.cases} decisions {sum(found.moved.values())} change: {listed}"


def own_examples() -> tuple[list[Example], frozenset[str]]:
    """The package's examples, and which of their sources are for calibration only."""
    fitting = read_examples(packaged_files("train"))
    calibrating = read_examples(packaged_files("calibration"))
    return [*fitting, *calibrating], frozenset(example.source for example in calibrating)


def examples_to_examine_dressed(examples: Sequence[Example], calibration_sources: frozenset[str]) -> Sequence[Example]:
    """Of the package's examples, those on which a student is compared with the packaged head: no weights were fitted on
    them."""
    return [example for example in examples if example.source in calibration_sources][::EXAMINE_EVERY]


def own_dressings(examples: Sequence[Example]) -> Dressings:
    """The package's dressings, with material from the conversations among ``examples``."""
    from ai_router.learning.asks import material_of

    return read_dressings(packaged_dressings()).with_prose(material_of(examples))


def _make_encoder(
    base: Path, fitting: Sequence[Example], weights: dict[str, float], dressings: Dressings, asks: AskModel
) -> None:
    from ai_router.learning.encoder_training import Recipe, train_encoder
    from ai_router.routing.head import store

    both = [*fitting, *dressed_examples(fitting, dressings.split()[0], seed=0)]
    counts = [weights.get(example.source, 1.0) for example in both]
    content = train_encoder(base, both, counts, Recipe(), asks.find, report=click.echo)
    path = Path(str(files(store.__package__).joinpath("encoder.npz")))
    path.write_bytes(content)
    click.echo(f"encoder written to {path}")
    store.clear_encoder_cache()


def _print_result(trained: TrainedHead, took_s: float) -> None:
    click.echo(
        f"fitted on {trained.fitted} examples in {took_s:.0f} s; of {trained.calibrated} others, plain and dressed, it "
        f"is sure of {trained.coverage:.1%}, and wrong in {trained.risk:.1%} of those"
    )


def _summary(result: HeldOutResult) -> str:
    sure = "-" if result.agreement_sure is None else f"{result.agreement_sure:.1%}"
    return f"agrees in {result.agreement:.1%} of {result.cases}; sure of {result.coverage:.1%}, agrees there in {sure}"
