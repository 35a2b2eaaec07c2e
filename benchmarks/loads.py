"""How many requests it carries: closed and open loops of plain requests, beside others in one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import orjson

from benchmarks.backend import Timing
from benchmarks.bare_hop import bare_hop
from benchmarks.load import Result, Spec, run
from benchmarks.report import Report
from benchmarks.rig import Server, backend, router
from benchmarks.sections import Cell, Line, Plot, Section, latencies, percentile
from benchmarks.turns import (
    Series,
    cpu_ms,
    flagged,
    generator_cell,
    in_turn,
    is_doubtful,
    lost,
    of_base,
    rates,
    whole_ms,
)

KEY = "benchmark-client-key"
INSTANT = Timing(tokens=14)
CONNECTIONS = (1, 8, 32)


class Others(Protocol):
    """Servers that stand beside the router, given the model's address and a folder."""

    def __call__(self, url: str, folder: Path, /) -> AbstractContextManager[Mapping[str, Server]]: ...


def nobody(_url: str, _folder: Path, /) -> AbstractContextManager[Mapping[str, Server]]:
    """The router and the bare hop alone."""
    return nullcontext({})


def body(*, stream: bool, model: str = "primary", text: str = "hello, how are you?") -> str:
    """A request's body."""
    messages = [{"role": "user", "content": text}]
    return orjson.dumps({"model": model, "messages": messages, **({"stream": True} if stream else {})}).decode()


@contextmanager
def contenders(folder: Path, url: str, threads: int = 72) -> Iterator[Mapping[str, Server]]:
    """The bare hop and the router with everything on, in front of ``url``."""
    settings = {"PRIMARY_URL": url, "AI_ROUTER_API_KEYS": KEY, "THREADS": str(threads)}
    with ExitStack() as running:
        bare = running.enter_context(bare_hop(url, folder / "bare", threads))
        ours = running.enter_context(router(folder / "router", **settings))
        yield {"bare hop": bare, "router": ours}


def plain_load(folder: Path, report: Report, rounds: int, seconds: float, others: Others = nobody) -> None:
    """Requests a second with 1, 8 and 32 connections in a closed loop, and the time that each adds to a single one."""
    found: dict[int, Mapping[str, Series]] = {}
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        beside = running.enter_context(others(model.url, folder / "others"))
        servers = {"direct": model, **running.enter_context(contenders(folder, model.url)), **beside}
        for connections in CONNECTIONS:
            report.begin(f"plain load, {connections} connections")
            spec = partial(Spec, body=body(stream=False), connections=connections, seconds=seconds, key=KEY)
            found[connections] = in_turn(servers, rounds, spec)
            report.add(_plain_section(connections, found[connections], servers))
    report.add(over_connections(found))


def _plain_section(connections: int, results: Mapping[str, Series], servers: Mapping[str, Server]) -> Section:
    rows: list[Sequence[Cell]] = []
    bare, direct = rates(results["bare hop"]), percentile(whole_ms(results["direct"]), 0.5)
    for name, series in results.items():
        times = whole_ms(series)
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        carried = statistics.median(rates(series)), of_base(rates(series), bare)
        used = cpu_ms(series), servers[name].rss_mib(), lost(series), generator_cell(turn.result for turn in series)
        rows.append((name, *carried, p50, p99, p50 - direct, *used))
    times_of = ("p50 (ms)", "p99 (ms)", "added p50 (ms)")
    columns = ("", "requests/s", "of bare hop", *times_of, "cpu ms/request", "RSS MiB", "lost", "generator")
    title = f"Plain requests, {connections} connection{'s' if connections > 1 else ''}"
    all_ms = {name: whole_ms(series) for name, series in results.items()}
    doubtful = [name for name, series in results.items() if is_doubtful(turn.result for turn in series)]
    curves = latencies(f"How long requests take, {connections} at a time", all_ms, doubtful)
    return flagged(Section(title, columns, rows, bars="requests/s", plots=(curves,)))


def over_connections(found: Mapping[int, Mapping[str, Series]]) -> Section:
    """Requests a second of each contender, by how many connections ask."""
    rows: list[Sequence[Cell]] = []
    lines = []
    for name in next(iter(found.values())):
        values = [statistics.median(rates(results[name])) for results in found.values()]
        doubtful = [
            at for at, results in enumerate(found.values()) if is_doubtful(turn.result for turn in results[name])
        ]
        rows.append((name, *values))
        lines.append(Line(name, list(zip(found, values, strict=True)), doubtful))
    title = "Requests a second, by connections"
    plot = Plot(title, "count", "connections", "requests/s", lines)
    return Section(title, ("", *map(str, found)), rows, plots=(plot,))


def open_load(folder: Path, report: Report, offered: Sequence[float], seconds: float) -> None:
    """Arrivals by chance, ``offered`` a second, whatever becomes of those before: what a waiting client sees."""
    rows: list[Sequence[Cell]] = []
    times: dict[str, Sequence[float]] = {}
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as servers:
        for rate in offered:
            for server, at in servers.items():
                name = f"{server}, {rate:g}/s"
                report.begin(f"open load, {name}")
                result = run(Spec(at.url, body(stream=False), seconds=seconds, rate=rate, key=KEY))
                times[name] = result.whole_ms
                rows.append(_open_row(name, result))
    columns = ("", "answered", "p50 (ms)", "p99 (ms)", "refused", "incomplete", "generator")
    title = "Open loop: arrivals by chance, a connection each"
    report.add(flagged(Section(title, columns, rows, plots=(latencies("How long requests take", times),))))


def _open_row(name: str, result: Result) -> Sequence[Cell]:
    p50, p99 = percentile(result.whole_ms, 0.5), percentile(result.whole_ms, 0.99)
    return name, result.answered, p50, p99, result.refused, result.incomplete, generator_cell([result])
