"""``judge``: stored local answers beside the cloud's, and what all judgements say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from ai_router.backend_limits import build_limiter
from ai_router.cli.common import exit_with, registry_of, request_of, settings_or_exit, upstream_client
from ai_router.config import MaxTokensPolicy, Settings
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.errors import RouterError, StoreUnavailable
from ai_router.judging.calling import ModelCaller
from ai_router.judging.cases import Case, cloud_allowed, stored_case
from ai_router.judging.comparer import Comparer, NotJudged, build_comparer
from ai_router.judging.comparing import Winner, WinRate
from ai_router.judging.report import judgements_document, rates_of
from ai_router.privacy import build_finder
from ai_router.providers.pricing import Pricing
from ai_router.routing.prompt import local_date_context
from ai_router.storage.lazy_store import lazy_keys
from ai_router.storage.usage_rows import Rows
from ai_router.storage.usage_writer import open_usage_store
from ai_router.virtual_key import ID_PREFIX

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText

_FAILURES_IN_A_ROW = 3


@click.command()
@click.option(
    "--sessions", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Else: SESSION_DIR."
)
@click.option("--limit", type=click.IntRange(1, 5_000), default=50, show_default=True, help="Judge so many at most.")
@click.option("--report", is_flag=True, help="Judge nothing; print what all judgements until now say.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def judge(folder: Path | None, limit: int, *, report: bool, as_json: bool) -> None:
    """Compare local answers in stored sessions, the newest first, with the cloud's, by JUDGE_MODEL.

    Each is judged once, blind and in both orders, within JUDGE_BUDGET_USD, which the running router shares. Nothing
    of a private session is sent anywhere.
    """
    settings = settings_or_exit()
    if not report and (settings.judge_model is None or settings.judge_budget_usd <= 0):
        exit_with("JUDGE_MODEL and JUDGE_BUDGET_USD say who judges, and what that may cost in a month")
    with ExitStack() as closing:
        comparer = _opened(settings, closing)
        try:
            if not report:
                _judge_sessions(settings, comparer, folder or settings.session_path, limit)
            rows, spent = comparer.store().all(), comparer.store().spent()
        except StoreUnavailable as problem:
            exit_with(f"judgements are kept in the database, which does not answer: {problem.detail}")
    if as_json:
        document = judgements_document(rows, spent, settings.judge_budget_usd)
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    rates, earlier = rates_of(rows)
    click.echo("\n".join(_lines(rates, spent, settings)))
    if earlier:
        click.echo(f"{earlier} judgements of other models, earlier ones, are not counted.")


def _opened(settings: Settings, closing: ExitStack) -> Comparer:
    """What compares answers, with all that it asks with."""
    registry = registry_of(settings)
    pricing = Pricing(registry, None, None)
    forwarder = Forwarder(
        closing.enter_context(upstream_client()),
        registry,
        primary_max_tokens=MaxTokensPolicy("pass"),
        thinking=PrimaryThinking(),
        request_timeout_s=settings.request_timeout_s,
    )

    def put_rows(rows: Rows) -> None:
        store = open_usage_store(settings.usage_database)
        try:
            store.insert([], rows.egress_rows)
        finally:
            store.close()

    caller = ModelCaller(forwarder, build_limiter(settings, registry), pricing.call_usd)
    return build_comparer(settings, registry, caller, pricing.is_local, put_rows, closing)


def _judge_sessions(settings: Settings, comparer: Comparer, folder: Path, limit: int) -> None:
    """Judge the newest sessions that were not judged before; a line for each, on stderr."""
    finder = build_finder(settings, comparer.registry.catalogue)
    done, failures = 0, 0
    for case in _cases(settings, comparer, folder, finder):
        if done == limit or failures == _FAILURES_IN_A_ROW:
            break
        try:
            result = comparer.compare(case)
        except NotJudged as problem:
            click.echo(f"stopped: {problem}", err=True)
            return
        done += 1
        failures = failures + 1 if result.winner is Winner.NONE else 0
        cost = "cost unknown" if result.usd is None else f"{result.usd:.4f} USD"
        click.echo(f"{case.session_id} {case.route}: {result.problem or result.winner} ({cost})", err=True)
    if failures == _FAILURES_IN_A_ROW:
        click.echo(f"stopped: {failures} in a row could not be judged", err=True)
    elif not done:
        click.echo(
            f"nothing to judge in {folder}: no local answer that is not private and was not judged yet", err=True
        )


def _cases(settings: Settings, comparer: Comparer, folder: Path, finder: PrivateText | None) -> Iterator[Case]:
    """Those that may be judged, the newest first. What would be private today counts as private, too; and so does what
    a key said that may not use the cloud, or is gone."""
    judged, clients = comparer.store().judged(), _clients_allowed(settings)
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            case = stored_case(orjson.loads(path.read_bytes()), comparer.is_local)
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as problem:
            click.echo(f"{path.name} is no session: {problem!r}", err=True)
            continue
        if case is None or case.session_id in judged or not comparer.takes(case):
            continue
        if settings.date_context:
            case = dataclasses.replace(case, date_context=local_date_context(case.timestamp))
        if case.client.startswith(ID_PREFIX) and case.client not in clients:
            continue
        if not _is_private(settings, case, finder):
            yield case


def _is_private(settings: Settings, case: Case, finder: PrivateText | None) -> bool:
    try:
        said = [*case.messages, {"role": "assistant", "content": case.answer}]
        return bool(request_of(settings, said, finder).local_only)
    except RouterError:  # nothing that would be accepted today: it is left alone
        return True


def _clients_allowed(settings: Settings) -> frozenset[str]:
    """The virtual keys that may use the cloud."""
    if not settings.virtual_keys:
        return frozenset()
    store = lazy_keys(settings.usage_database)
    try:
        return frozenset(row.key.id for row in store.store().all(revoked=False) if cloud_allowed(row.key))
    finally:
        store.close()


def _lines(rates: Mapping[str, WinRate], spent: float, settings: Settings) -> Iterable[str]:
    budget = f" of {settings.judge_budget_usd:g}" if settings.judge_budget_usd > 0 else ""
    yield f"spent this month: {spent:.4f}{budget} USD"
    if not rates:
        yield "no judgements yet"
        return
    yield ""
    yield f"{'route':16} {'compared':>8} {'local':>6} {'tie':>6} {'cloud':>6} {'local wins':>11} {'95 %':>13}"
    for route, found in rates.items():
        yield (
            f"{route:16} {found.compared:>8} {found.won_by_local:>6} {found.ties:>6} {found.won_by_cloud:>6} "
            f"{'-' if found.rate is None else f'{found.rate:.0%}':>11} {_interval(found):>13}"
        )
    yield ""
    yield "A tie counts half. It is one too where the judge preferred another answer once their order was changed:"
    yield ", ".join(f"{route} {found.contradicted} of {found.ties}" for route, found in rates.items()) + "."
    if missing := sum(found.without_verdict for found in rates.values()):
        yield f"{missing} more could not be compared: no answer of the cloud's, or no verdict."


def _interval(found: WinRate) -> str:
    if found.interval is None:
        return "-"
    low, high = found.interval
    return f"{low:.0%} to {high:.0%}"
