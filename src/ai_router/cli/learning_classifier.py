"""``learn --classifier``: what the probabilities of a decision model are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ai_router.cli.common import exit_with, opened_classifier, registry_of, request_of, settings_or_exit
from ai_router.cli.feedback_examples import LIKED, TOLD, feedback_examples
from ai_router.config import ClassifierMode, Settings
from ai_router.errors import UpstreamError
from ai_router.http.calls import UpstreamCall
from ai_router.learning.examples import read_sessions
from ai_router.learning.installing import install
from ai_router.privacy import build_finder
from ai_router.routing.calibration_store import CALIBRATION_FILE, pack_calibration
from ai_router.routing.classifier import Classifier
from ai_router.routing.decision_model import AS_THEY_ARE
from ai_router.routing.head.store import HeadStore
from ai_router.types import ChatRequest, DecidedBy, LabelName, Message

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText

MOST_CASES = 500
"""Of the newest: a decision model takes up to 0.3 s for one."""


def learn_classifier(out: Path | None) -> None:
    """Ask the decision model about decisions whose label is known, and keep a calibration if that tells others
    better."""
    from ai_router.learning.classifier_calibration import Case, fit_calibration

    settings = settings_or_exit()
    if settings.classifier_mode is not ClassifierMode.DECISION:
        exit_with("--classifier is for CLASSIFIER_MODE=decision: only a decision model gives all probabilities")
    known = _known(settings, build_finder(settings, registry_of(settings).catalogue))[-MOST_CASES:]
    click.echo(f"{len(known)} decisions of which the label is known: by people, or by the fast path where it was sure")
    cases: list[Case] = []
    with opened_classifier(settings) as classifier:
        if classifier is None:
            exit_with("ROUTER_URL names no classifier")
        classifier.use_calibration(AS_THEY_ARE)
        for request, label in known:
            shares = _ask(classifier, request)
            if shares:
                cases.append((shares, label))
    try:
        calibration, result = fit_calibration(cases)
    except ValueError as problem:
        exit_with(str(problem))
    for name, (before, after), form in (
        ("right", result.right, "{:.1%}"),
        ("loss", result.loss, "{:.3f}"),
        ("calibration error", result.error, "{:.3f}"),
    ):
        click.echo(f"{name}: {form.format(before)} as they are, {form.format(after)} calibrated on others")
    if not result.helps:
        click.echo("not installed: it does not tell better")
        raise SystemExit(1)
    path = settings.data_dir / CALIBRATION_FILE if out is None else out
    install(pack_calibration(settings.router_model, calibration), path)
    bias = ", ".join(f"{label} {value:+.2f}" for label, value in calibration.bias.items())
    click.echo(f"temperature {calibration.temperature:.2f}, bias {bias}; installed as {path}")


def _known(settings: Settings, finder: PrivateText | None) -> list[tuple[ChatRequest, LabelName]]:
    """Requests and their labels, oldest first: of which the head was sure, or somebody has said so. Nothing of a
    local-only request, nor of one that would be local-only today: the model may be anywhere."""
    found: dict[str, tuple[Sequence[Message], LabelName]] = {}
    threshold = HeadStore(settings.data_dir).current.threshold
    if settings.session_path.is_dir():
        for session in read_sessions(settings.session_path):
            # What stood in for the classifier, and what stayed with the turn before, has a failure or no confidence.
            sure = session.failure is None and (session.confidence or 0.0) >= threshold
            if session.decided_by is DecidedBy.FAST and sure and not session.private:
                found[session.session_id] = (session.messages, session.label)
    for example in feedback_examples(settings.usage_database):
        if example.source in (TOLD, LIKED) and not example.private:
            found[example.group] = (example.messages, example.label)
    requests = ((request_of(settings, messages, finder), label) for messages, label in found.values())
    return [(request, label) for request, label in requests if not request.local_only]


def _ask(classifier: Classifier, request: ChatRequest) -> dict[LabelName, float]:
    """The probabilities; none where it does not answer."""
    try:
        return dict(classifier.classify(request, UpstreamCall).probabilities)
    except UpstreamError as problem:
        click.echo(f"not answered: {problem}", err=True)
        return {}
