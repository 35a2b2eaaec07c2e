"""How many requests and streams it carries, and what a streamed chunk costs, beside others in one run."""

from __future__ import annotations

import http.client
import re
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks.backend import INSTANT, Timing
from benchmarks.load import (
    Result,
    Series,
    Spec,
    Turn,
    body,
    cpu_ms,
    generator_cell,
    is_doubtful,
    lost,
    of_base,
    p50,
    p99,
    percentile,
    rates,
    results,
    run,
    whole_ms,
)
from benchmarks.peers import contenders
from benchmarks.report import Cell, Line, Plot, Report, Section, flagged, latencies
from benchmarks.rig import Endpoint, Server, backend, in_turn, left_out, one_turn, set_timing

CONNECTIONS = (1, 8, 32)


class Others(Protocol):
    """Further servers to measure in the same run, given the model's address and a folder."""

    def __call__(self, url: str, folder: Path, /) -> AbstractContextManager[Mapping[str, Server]]: ...


def nobody(_url: str, _folder: Path, /) -> AbstractContextManager[Mapping[str, Server]]:
    """No further servers: the router and the bare hop alone."""
    return nullcontext({})


def plain_load(
    folder: Path, report: Report, rounds: int, seconds: float, others: Others = nobody, workers: int = 1
) -> None:
    """Closed loops of plain requests with 1, 8 and 32 connections: requests a second, and what a request takes."""
    found: dict[int, Mapping[str, Series]] = {}
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        beside = running.enter_context(others(model.url, folder / "others"))
        servers = {"direct": model, **running.enter_context(contenders(folder, model.url, workers=workers)), **beside}
        for connections in CONNECTIONS:
            report.begin(f"plain load, {connections} connections")
            spec = partial(Spec, body=body(stream=False), connections=connections, seconds=seconds)
            found[connections] = in_turn(servers, rounds, spec)
            report.add(_plain_section(connections, found[connections], servers))
    report.add(over_connections(found))


def _plain_section(connections: int, found: Mapping[str, Series], servers: Mapping[str, Server]) -> Section:
    rows: list[Sequence[Cell]] = []
    all_ms = {name: whole_ms(series) for name, series in found.items()}
    bare, direct_ms = rates(found["bare hop"]), p50(all_ms["direct"])
    for name, series in found.items():
        carried = statistics.median(rates(series)), of_base(rates(series), bare)
        times = p50(all_ms[name]), p99(all_ms[name]), p50(all_ms[name]) - direct_ms
        used = cpu_ms(series), servers[name].rss_mib(), lost(series), generator_cell(results(series))
        rows.append((name, *carried, *times, *used))
    times_of = ("p50 (ms)", "p99 (ms)", "added p50 (ms)")
    columns = ("", "requests/s", "of bare hop", *times_of, "cpu ms/request", "RSS MiB", "lost", "generator")
    title = f"Plain requests, {connections} connection{'s' if connections > 1 else ''}"
    doubtful = [name for name, series in found.items() if is_doubtful(results(series))]
    curves = latencies(f"How long requests take, {connections} at a time", all_ms, doubtful)
    return flagged(Section(title, columns, rows, bars="requests/s", plots=(curves,)))


def over_connections(found: Mapping[int, Mapping[str, Series]]) -> Section:
    """Requests a second of each server, by the number of connections."""
    rows: list[Sequence[Cell]] = []
    lines = []
    for name in next(iter(found.values())):
        mine = [by_name[name] for by_name in found.values()]
        values = [statistics.median(rates(series)) for series in mine]
        doubtful = [at for at, series in enumerate(mine) if is_doubtful(results(series))]
        rows.append((name, *values))
        lines.append(Line(name, list(zip(found, values, strict=True)), doubtful))
    title = "Requests a second, by connections"
    plot = Plot(title, "count", "connections", "requests/s", lines)
    return Section(title, ("", *map(str, found)), rows, plots=(plot,))


def open_load(folder: Path, report: Report, offered: Sequence[float], seconds: float) -> None:
    """An open loop: requests arrive by chance, ``offered`` a second, whether those before are answered or not."""
    rows: list[Sequence[Cell]] = []
    times: dict[str, Sequence[float]] = {}
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as servers:
        for rate in offered:
            for server, at in servers.items():
                name = f"{server}, {rate:g}/s"
                report.begin(f"open load, {name}")
                result = run(Spec(at.url, body(stream=False), seconds=seconds, rate=rate))
                times[name] = result.whole_ms
                ends = result.refused, result.incomplete, generator_cell([result])
                rows.append((name, result.answered, p50(result.whole_ms), p99(result.whole_ms), *ends))
    columns = ("", "answered", "p50 (ms)", "p99 (ms)", "refused", "incomplete", "generator")
    title = "Open loop: arrivals by chance, a connection each"
    report.add(flagged(Section(title, columns, rows, plots=(latencies("How long requests take", times),))))


_FIGURES = {
    "complete": r"Complete requests:\s+(\d+)",
    "failed": r"Failed requests:\s+(\d+)",
    "refused": r"Non-2xx responses:\s+(\d+)",
    "requests/s": r"Requests per second:\s+([\d.]+)",
    "p50 (ms)": r"\s50%\s+(\d+)",
    "p99 (ms)": r"\s99%\s+(\d+)",
}


def figures(output: str) -> Sequence[float]:
    """The figures in ab's output, in the order of the columns. ab leaves out what did not happen: that is 0 here."""
    found = (re.search(pattern, output) for pattern in _FIGURES.values())
    return [float(match[1]) if match else 0.0 for match in found]


def apache_bench(folder: Path, report: Report) -> None:
    """250 plain requests, 25 at a time, and 250 streams, of the bare hop and of the router, by a client that others
    wrote; a message where there is no ab."""
    title = "ab -n 250 -c 25"
    if (ab := shutil.which("ab")) is None:
        report.add(Section(title, ("",), [("left out: there is no ab here (Debian: apache2-utils)",)]))
        return
    rows: list[Sequence[Cell]] = []
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as servers:
        for kind in ("plain", "streamed"):
            asked = folder / f"{kind}.json"
            asked.write_text(body(stream=kind == "streamed"))
            for name, server in servers.items():
                report.begin(f"{title}, {name}, {kind}")
                command = [ab, "-n", "250", "-c", "25", "-l", "-p", str(asked), "-T", "application/json"]
                command.append(f"{server.url}/v1/chat/completions")
                said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
                rows.append((f"{name}, {kind}", *figures(said)))
    report.add(Section(title, ("", *_FIGURES), rows, "ab speaks HTTP/1.0 and opens a connection for each request."))


BEGIN_PER_S = 50
"""How many of many streams begin a second."""
_TOGETHER_S = 10
"""How long all of them are under way together, at least."""
TORRENT = Timing(ttft_s=(0.05, 0.05), tokens_per_s=200.0, tokens=400)
"""What a fast model streams: for the cost of a chunk."""
_NOTE = (
    f"{BEGIN_PER_S} begin a second. The model's first token comes after 0.5 s, then 2 chunks a second; all that are "
    f"admitted are under way together for {_TOGETHER_S} s. The router has its defaults; the bare hop has a thread for "
    "each stream, since it cannot do with fewer. Refused: answered with an error, as 503."
)


def chunk_cost(folder: Path, report: Report, rounds: int, others: Others = nobody) -> None:
    """Processor time of a relayed chunk: eight streams of a fast model."""
    spec = partial(Spec, body=body(stream=True), connections=8, once=True)
    with (
        backend(TORRENT, folder / "torrent") as model,
        others(model.url, folder / "others") as beside,
        contenders(folder / "chunks", model.url) as ours,
    ):
        report.begin("the cost of a chunk")
        found = in_turn({**ours, **those_that_stream(beside)}, rounds, spec)
    costs = {name: [turn.cpu_us_a_chunk for turn in series] for name, series in found.items()}
    rows: list[Sequence[Cell]] = []
    for name, series in found.items():
        answered = sum(result.answered for result in results(series))
        ratio, whole = of_base(costs[name], costs["bare hop"]), f"{answered} of {answered + lost(series)}"
        rows.append((name, statistics.median(costs[name]), ratio, whole, generator_cell(results(series))))
    columns = ("", "cpu us/chunk", "of bare hop", "whole", "generator")
    report.add(flagged(Section("A relayed chunk", columns, rows, bars="cpu us/chunk")))


def those_that_stream(servers: Mapping[str, Server]) -> Mapping[str, Server]:
    """Those that begin a stream when asked for one, which warms them up. The others are reported as left out."""
    able = {}
    for name, server in servers.items():
        problem = why_no_stream(server)
        if problem is None:
            able[name] = server
        else:
            left_out(name, problem)
    return able


def why_no_stream(server: Server) -> str | None:
    """What is wrong with its stream, up to the first event; None if nothing is."""
    try:
        status, received = Endpoint(server.url, "primary", headers=server.headers).first_event("hello, how are you?")
    except (OSError, http.client.HTTPException) as problem:
        return f"{type(problem).__name__}: {problem}"
    if status == 200 and b"data:" in received:
        return None
    return f"it answers {status} with {received[:100]!r} when asked for a stream"


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many streams at once through one server, and as many from the model directly."""

    name: str
    count: int
    turn: Turn
    direct: Result
    rss_mib: float

    @property
    def added_ttft_ms(self) -> float:
        """By how much the 95th percentile of the time to the first event is later."""
        return percentile(self.turn.result.first_ms, 0.95) - percentile(self.direct.first_ms, 0.95)

    def row(self) -> Sequence[Cell]:
        """Its row of the table."""
        result = self.turn.result
        gap = p99(result.gaps_ms) - p99(self.direct.gaps_ms)
        ends = result.answered, result.incomplete, result.refused, result.at_once
        figures = self.added_ttft_ms, gap, self.turn.cpu_us_a_chunk, self.rss_mib
        return f"{self.name}, {self.count}", *ends, *figures, generator_cell([result])


def many_streams(
    folder: Path, report: Report, counts: Sequence[int], others: Others = nobody, workers: int = 1
) -> None:
    """Streams at once at two chunks a second: none may be incomplete. What a server does not admit is counted."""
    crowds: list[Crowd] = []
    with backend(slow_streams(1), folder / "slow") as model, others(model.url, folder / "others") as beside:
        able = dict(those_that_stream(beside))
        for count in counts:
            set_timing(model, slow_streams(count))
            with contenders(
                folder / f"streams-{count}", model.url, hop_threads=max(72, count + 64), workers=workers
            ) as ours:
                direct = run(_all_of(model, count))
                for name, server in {**ours, **able}.items():
                    report.begin(f"{count} streams, {name}")
                    crowd = _crowd(name, server, count, direct)
                    if crowd is None:
                        able.pop(name, None)
                    else:
                        crowds.append(crowd)
    columns = (
        "",
        "whole",
        "not whole",
        "refused",
        "at once",
        "added TTFT p95 (ms)",
        "added gap p99 (ms)",
        "cpu us/chunk",
        "RSS MiB",
    )
    title, note = "Streams at once", _NOTE
    rows = [crowd.row() for crowd in crowds]
    report.add(flagged(Section(title, (*columns, "generator"), rows, note, plots=over_streams(crowds))))


def slow_streams(count: int) -> Timing:
    """Streams that last so long that the first is still under way some time after the last of so many has begun."""
    return Timing(ttft_s=(0.5, 0.5), tokens_per_s=2.0, tokens=round(2 * (count / BEGIN_PER_S + _TOGETHER_S)))


def _all_of(server: Server, count: int) -> Spec:
    return Spec(server.url, body(stream=True), count, once=True, begin_per_s=BEGIN_PER_S)


def _crowd(name: str, server: Server, count: int, direct: Result) -> Crowd | None:
    """None, and a message, for a server whose streams do not come to an end."""
    try:
        turn = one_turn(server, _all_of(server, count))
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as problem:
        left_out(name, f"{count} streams: {type(problem).__name__}")
        return None
    return Crowd(name, count, turn, direct, server.rss_mib())


def over_streams(crowds: Sequence[Crowd]) -> Sequence[Plot]:
    """Processor time of a chunk, and how much later the first one comes, by the number of streams; without those where
    no stream was admitted."""
    names = list(dict.fromkeys(crowd.name for crowd in crowds))
    mine = {name: [crowd for crowd in crowds if crowd.name == name and crowd.turn.result.chunks] for name in names}
    unsure = {name: [n for n, crowd in enumerate(mine[name]) if is_doubtful([crowd.turn.result])] for name in names}
    cpu = [Line(name, [(c.count, c.turn.cpu_us_a_chunk) for c in mine[name]], unsure[name]) for name in names]
    first = [Line(name, [(c.count, c.added_ttft_ms) for c in mine[name]], unsure[name]) for name in names]
    return (
        Plot("Processor time of a chunk", "count", "streams at once", "us", cpu, least=1.0),
        Plot("Added time to the first event, p95", "count", "streams at once", "ms", first, least=1.0),
    )
