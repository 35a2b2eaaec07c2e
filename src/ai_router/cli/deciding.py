"""``route`` and ``replay``: explaining a decision, and deciding stored sessions again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson
from prometheus_client import CollectorRegistry

from ai_router.backend_limits import build_limiter
from ai_router.cli.common import exit_with, opened_classifier, registry_of, request_of, settings_or_exit
from ai_router.dispatch.dry_run import dry_run_document
from ai_router.dispatch.local_plan import kept_local
from ai_router.dispatch.plan import plan_answer, primary_candidate
from ai_router.http.calls import CancelScope
from ai_router.learning.examples import (
    StoredSession,
    read_sessions,
)
from ai_router.learning.replay import ReplayReport, policy_named
from ai_router.learning.replay import replay as replay_sessions
from ai_router.observability.metrics import RoutingMetrics
from ai_router.privacy import build_finder
from ai_router.routing.dial import HIGHEST, LOWEST
from ai_router.routing.head.model import Guess
from ai_router.routing.head.own_store import OwnRoutesStore
from ai_router.routing.head.store import HeadStore, packaged_slow_models
from ai_router.routing.monitor import Monitor
from ai_router.routing.router import Router
from ai_router.routing.shown_ask import shown_ask
from ai_router.types import DecidedBy
from ai_router.wiring import build_fast_path, quality_of


@click.command()
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as one JSON object.")
@click.option(
    "--quality", type=click.IntRange(LOWEST, HIGHEST), help="From 0, nothing to the cloud, to 10. Else: QUALITY."
)
def route(text: str, *, as_json: bool, quality: int | None) -> None:
    """Decide where TEXT would be answered, without answering it."""
    settings = settings_or_exit()
    registry = registry_of(settings)
    finder = build_finder(settings, registry.catalogue)
    request = request_of(settings, [{"role": "user", "content": text}], finder)
    with opened_classifier(settings) as classifier:
        fast = None
        if settings.fast_routing:
            metrics = RoutingMetrics(CollectorRegistry())
            # A running router decides by words alone until they are loaded. Here there is time to wait for them.
            packaged_slow_models().vectors.of(["hello"])
            fast = build_fast_path(
                settings, HeadStore(settings.data_dir), OwnRoutesStore(settings.data_dir), Monitor(1.0), metrics
            )
        router = Router(
            registry,
            classifier,
            fast,
            build_limiter(settings, registry),
            cloud_fallback=settings.cloud_fallback,
            quality=quality_of(settings) if quality is None else quality,
        )
        run = router.dry_run(request, CancelScope(local_only=bool(request.local_only)).new_call)
    decision, plan = run.decision, plan_answer(run.decision, registry, cloud_fallback=settings.cloud_fallback)
    if request.local_only:
        plan = kept_local(plan, decision, primary_candidate(registry), request.local_only)
    if as_json:
        document = dry_run_document(run, plan, request, registry.searchers)
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    confidence = "" if decision.confidence is None else f", confidence {decision.confidence:.2f}"
    click.echo(f"{decision.label} -> {decision.route} (decided by {decision.decided_by}{confidence})")
    click.echo("; ".join(part for part in (decision.reason, shown_ask(decision)) if part))
    if run.guess is not None and decision.decided_by is not DecidedBy.FAST:
        click.echo(f"the fast path was not sure: {run.guess.reason}")
    if plan.note:
        click.echo(plan.note)


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
    head = HeadStore(settings_or_exit().data_dir).current

    def guess_of(session: StoredSession) -> Guess:
        return head.guess(session.messages, session.year)

    try:
        chosen = policy_named(policy, guess_of)
    except ValueError as problem:
        exit_with(str(problem))
    result = replay_sessions(read_sessions(folder), chosen)
    if as_json:
        moved = [{"from": here, "to": there, "sessions": n} for (here, there), n in sorted(result.moved.items())]
        click.echo(orjson.dumps({**_plain(result), "moved": moved}, option=orjson.OPT_INDENT_2))
        return
    click.echo(replay_table(policy, result))


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, floats rounded to four digits."""
    return {
        field.name: round(found, 4) if isinstance(found := getattr(value, field.name), float) else found
        for field in dataclasses.fields(value)
    }


def replay_table(policy: str, result: ReplayReport) -> str:
    """The report of ``replay`` as text."""
    return "\n".join(_replay_lines(policy, result))


def _replay_lines(policy: str, result: ReplayReport) -> Iterator[str]:
    yield f"{result.sessions} sessions decided again by policy {policy}; {result.agreed:.1%} keep their route"
    for (here, there), count in sorted(result.moved.items()):
        if here != there:
            yield f"  {here} -> {there}: {count}"
    yield f"classifier asked: {result.asked_before} times, would be {result.asked}"
    if result.before_ms is not None and result.after_ms is not None:
        yield f"time to the answer (p50): {result.before_ms:.0f} ms, would be about {result.after_ms:.0f} ms"
    yield f"cost: {result.before_usd:.4f} USD, would be about {result.after_usd:.4f} USD"
