"""Whether eight hours of use on disk slow a request down: a router with them beside two that have none."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ai_router.config import Settings, load_settings
from ai_router.storage.session_logger import MAX_FILES, SessionLogger
from ai_router.storage.usage import UsageStore
from ai_router.storage.usage_rows import rows_of
from ai_router.types import Outcome
from benchmarks.load import Spec
from benchmarks.loads import INSTANT, KEY, body
from benchmarks.measure import settled
from benchmarks.report import Report
from benchmarks.rig import Server, backend, router
from benchmarks.sections import Cell, Section, latencies, percentile
from benchmarks.turns import Turn, flagged, generator_cell, of_base, one_turn, whole_ms
from tests.chat_requests import chat_request
from tests.outcomes import FREE, outcome

HOURS = 8
CONNECTIONS = 8
_AT_ONCE = 500
"""Rows a transaction, as the router writes them at most."""


def outcomes(count: int, end: datetime) -> Iterator[Outcome]:
    """One a second, the last at ``end``, oldest first; each as large as a question and an answer of some length."""
    said = {"role": "assistant", "content": "lorem " * 200, "finish_reason": "stop"}
    for number in range(count):
        at = end - timedelta(seconds=count - 1 - number)
        request = chat_request("hello " * 100, session_id=secrets.token_hex(6), timestamp=at, client="benchmark")
        yield outcome(request=request, response=said)


def fill(data: Path, seconds: int) -> None:
    """Leave in a data folder what a request a second for so long leaves: a row of usage for each, and session files of
    the last, as many as are kept."""
    data.mkdir(parents=True)
    sessions, store = SessionLogger(of_router(data).session_path), UsageStore(of_router(data).usage_database)
    rows = []
    for number, ended in enumerate(outcomes(seconds, datetime.now(UTC))):
        rows.append(rows_of(ended, FREE, lambda _: True).request)
        if number >= seconds - MAX_FILES:
            sessions.save(ended, FREE)
        if len(rows) == _AT_ONCE:
            store.insert(rows, [])
            rows = []
    store.insert(rows, [])
    store.close()


def of_router(data: Path) -> Settings:
    """The settings of a router with that data folder, for where it keeps what."""
    return load_settings({"DATA_DIR": str(data)}, dotenv=None)


def emptied(data: Path) -> None:
    """Take away what the turns so far have left, while its router runs."""
    for path in of_router(data).session_path.glob("*.json"):
        path.unlink(missing_ok=True)
    store = UsageStore(of_router(data).usage_database)
    store.forget_before(f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}")
    store.close()


def eight_hours(folder: Path, report: Report, rounds: int, seconds: float, of_use: int = HOURS * 3600) -> None:
    """A closed loop of plain requests through all, in turn; ``of_use`` seconds at a request a second."""
    report.begin(f"{of_use:,} seconds of use: writing what they leave")
    full, empty, again = folder / "full", folder / "empty", folder / "again"
    fill(full / "data", of_use)
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        settings = {"PRIMARY_URL": model.url, "AI_ROUTER_API_KEYS": KEY}
        servers = {
            "nothing on disk": running.enter_context(router(empty, **settings)),
            # What two that are alike differ by.
            "nothing on disk, another": running.enter_context(router(again, **settings)),
            f"{of_use / 3600:g} hours on disk": running.enter_context(router(full, **settings)),
        }
        found: dict[str, list[Turn]] = {name: [] for name in servers}
        for number in range(rounds + 1):
            for data in (empty, again):
                emptied(data / "data")
            for name, server in _alternating(servers, number):
                report.begin(f"hours, {name}, {number} of {rounds}")
                turn = one_turn(server, Spec(server.url, body(stream=False), CONNECTIONS, seconds, key=KEY))
                settled(server.url, KEY)
                if number:  # the first round warms up
                    found[name].append(turn)
        report.add(hours_section(found, _left(full / "data")))


def _alternating(servers: Mapping[str, Server], number: int) -> Sequence[tuple[str, Server]]:
    """Each first every other round: what the one before leaves to be written is written while the next is measured."""
    return list(servers.items())[:: 1 if number % 2 else -1]


def _left(data: Path) -> str:
    """What lies in a data folder at the end."""
    files = sum(1 for _ in of_router(data).session_path.glob("*.json"))
    return f"{files:,} session files and a usage database of {(data / 'usage.db').stat().st_size / 1e6:.0f} MB"


def hours_section(found: Mapping[str, Sequence[Turn]], left: str) -> Section:
    """The table: p50 and p99 of all turns, and the ratios to the first row within a turn."""
    base = next(iter(found.values()))
    rows: list[Sequence[Cell]] = []
    for name, series in found.items():
        times = whole_ms(series)
        quantiles = percentile(times, 0.5), percentile(times, 0.99)
        ratios = (None, None) if series is base else (_ratio(series, base, 0.5), _ratio(series, base, 0.99))
        rows.append((name, *quantiles, *ratios, len(times), generator_cell(turn.result for turn in series)))
    columns = ("", "p50 (ms)", "p99 (ms)", "p50 of the first", "p99 of the first", "requests", "generator")
    note = f"{CONNECTIONS} connections; ratios are medians of those within a turn. At the end there were {left}."
    curves = latencies("How long requests take", {name: whole_ms(series) for name, series in found.items()})
    return flagged(Section("Eight hours of sessions on disk", columns, rows, note, plots=(curves,)))


def _ratio(series: Sequence[Turn], base: Sequence[Turn], share: float) -> float:
    mine, its = ([percentile(turn.result.whole_ms, share) for turn in turns] for turns in (series, base))
    return of_base(mine, its)
