"""How much it carries: closed and open loops of plain requests, and many streams at once, beside others in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson

from benchmarks.backend import Timing
from benchmarks.bare_hop import bare_hop
from benchmarks.load import Result, Spec, percentile, run
from benchmarks.report import Cell, Report, Section
from benchmarks.rig import Server, backend, router

KEY = "benchmark-client-key"
INSTANT = Timing(tokens=14)
TRICKLE = Timing(ttft_s=(0.2, 0.4), tokens_per_s=2.0, tokens=20)
"""Ten seconds at two chunks a second."""
TORRENT = Timing(ttft_s=(0.05, 0.05), tokens_per_s=200.0, tokens=400)
"""What a fast model streams: for the cost of a chunk."""
_THREADS = {32: 72, 128: 160, 512: 640, 1000: 1200}


Others = Callable[[str], Mapping[str, Server]]
Series = list[tuple[Result, float]]
"""What each turn came to, and the processor seconds it took."""


def body(*, stream: bool, model: str = "primary", text: str = "hello, how are you?") -> str:
    """A request's body."""
    messages = [{"role": "user", "content": text}]
    return orjson.dumps({"model": model, "messages": messages, **({"stream": True} if stream else {})}).decode()


@contextmanager
def contenders(folder: Path, url: str, threads: int = 72, workers: int = 1) -> Iterator[Mapping[str, Server]]:
    """The bare hop and the router with everything on, in front of ``url``."""
    settings = {"PRIMARY_URL": url, "AI_ROUTER_API_KEYS": KEY, "THREADS": str(threads)}
    if workers > 1:
        settings["WORKERS"] = str(workers)
    with ExitStack() as running:
        bare = running.enter_context(bare_hop(url, folder / "bare", threads, workers))
        ours = running.enter_context(router(folder / "router", **settings))
        yield {"bare hop": bare, "router": ours}


def plain_load(
    folder: Path,
    report: Report,
    rounds: int,
    seconds: float,
    others: Callable[[str], Mapping[str, Server]] = lambda _: {},
) -> None:
    """Requests a second with 1, 8 and 32 connections in a closed loop, and the time that each adds to a single one.

    ``others`` are given the model's address and stand beside.
    """
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as ours:
        servers = {"direct": model, **ours, **others(model.url)}
        for connections in (1, 8, 32):
            report.begin(f"plain load, {connections} connections")
            spec = partial(Spec, body=body(stream=False), connections=connections, seconds=seconds, key=KEY)
            results = _in_turn(servers, rounds, spec)
            report.add(_plain_section(connections, results, servers))


def _in_turn(
    servers: Mapping[str, Server], rounds: int, spec: Callable[[str], Spec]
) -> Mapping[str, list[tuple[Result, float]]]:
    """Each server once a round, and the processor seconds it took; the first round warms up."""
    found: dict[str, Series] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, server in servers.items():
            before = server.cpu_s()
            result = run(replace(spec(server.url), headers=dict(server.headers)))
            if number:
                found[name].append((result, server.cpu_s() - before))
    return found


def _plain_section(connections: int, results: Mapping[str, Series], servers: Mapping[str, Server]) -> Section:
    rows: list[Sequence[Cell]] = []
    bare = [result.per_second for result, _ in results["bare hop"]]
    for name, series in results.items():
        rates = [result.per_second for result, _ in series]
        times = [ms for result, _ in series for ms in result.whole_ms]
        ratio = statistics.median(mine / its for mine, its in zip(rates, bare, strict=True))
        cpu = statistics.median(cpu / max(result.answered, 1) * 1000 for result, cpu in series)
        lost = sum(result.incomplete + result.refused for result, _ in series)
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        rows.append((name, statistics.median(rates), ratio, p50, p99, cpu, servers[name].rss_mib(), lost))
    columns = ("", "requests/s", "of bare hop", "p50 (ms)", "p99 (ms)", "cpu ms/request", "RSS MiB", "lost")
    return Section(f"Plain requests, {connections} connections", columns, rows, _generator(results), bars="requests/s")


def _generator(results: Mapping[str, Series]) -> str:
    busiest = max(result.busy for series in results.values() for result, _ in series)
    return f"The generator used at most {busiest:.0%} of a core."


def open_load(folder: Path, report: Report, rates: Sequence[float], seconds: float) -> None:
    """Arrivals by chance, whatever becomes of those before: what a waiting client sees."""
    rows: list[Sequence[Cell]] = []
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as servers:
        for rate in rates:
            for name, server in servers.items():
                report.begin(f"open load, {rate:g}/s, {name}")
                result = run(Spec(server.url, body(stream=False), seconds=seconds, rate=rate, key=KEY))
                p50, p99 = percentile(result.whole_ms, 0.5), percentile(result.whole_ms, 0.99)
                rows.append((f"{name}, {rate:g}/s", result.answered, p50, p99, result.refused, result.incomplete))
    columns = ("", "answered", "p50 (ms)", "p99 (ms)", "refused", "incomplete")
    report.add(Section("Open loop: arrivals by chance, a connection each", columns, rows))


def many_streams(folder: Path, report: Report, counts: Sequence[int]) -> None:
    """Streams at once at two chunks a second: none may be incomplete."""
    rows: list[Sequence[Cell]] = []
    generator = 0.0
    for count in counts:
        threads = next((threads for most, threads in _THREADS.items() if count <= most), 2 * count)
        with (
            backend(TRICKLE, folder / f"trickle-{count}") as model,
            contenders(folder / f"streams-{count}", model.url, threads) as servers,
        ):
            direct = run(Spec(model.url, body(stream=True), count, once=True))
            for name, server in servers.items():
                report.begin(f"{count} streams, {name}")
                before = server.cpu_s()
                result = run(Spec(server.url, body(stream=True), count, once=True, key=KEY))
                cpu = (server.cpu_s() - before) / max(result.chunks, 1) * 1e6
                generator = max(generator, result.busy)
                added = percentile(result.first_ms, 0.95) - percentile(direct.first_ms, 0.95)
                gap = percentile(result.gaps_ms, 0.99) - percentile(direct.gaps_ms, 0.99)
                lost = result.incomplete + result.refused
                rows.append((f"{name}, {count}", result.answered, lost, added, gap, cpu, server.rss_mib()))
    columns = ("", "whole", "not whole", "added TTFT p95 (ms)", "added gap p99 (ms)", "cpu us/chunk", "RSS MiB")
    note = f"10 s each at 2 chunks a second. The generator used at most {generator:.0%} of a core."
    report.add(Section("Streams at once", columns, rows, note))


def chunk_cost(folder: Path, report: Report, rounds: int) -> None:
    """Processor time of a relayed chunk: eight streams of a fast model."""
    with backend(TORRENT, folder / "torrent") as model, contenders(folder / "chunks", model.url) as servers:
        report.begin("the cost of a chunk")
        spec = partial(Spec, body=body(stream=True), connections=8, once=True, key=KEY)
        results = _in_turn(servers, rounds, spec)
    costs = {n: [cpu / max(r.chunks, 1) * 1e6 for r, cpu in series] for n, series in results.items()}
    rows: list[Sequence[Cell]] = []
    for name, series in costs.items():
        ratio = statistics.median(mine / its for mine, its in zip(series, costs["bare hop"], strict=True))
        rows.append((name, statistics.median(series), ratio))
    columns = ("", "cpu us/chunk", "of bare hop")
    report.add(Section("A relayed chunk", columns, rows, _generator(results), bars="cpu us/chunk"))
