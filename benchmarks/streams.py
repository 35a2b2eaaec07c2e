"""What streams cost: a relayed chunk, and many streams at once, beside others in one run."""

from __future__ import annotations

import http.client
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.backend import Timing
from benchmarks.load import Result, Spec, run
from benchmarks.loads import KEY, Others, body, contenders, nobody
from benchmarks.measure import Endpoint
from benchmarks.report import Report
from benchmarks.rig import Server, backend
from benchmarks.sections import Cell, Line, Plot, Section, percentile
from benchmarks.turns import Turn, flagged, generator_cell, in_turn, is_doubtful, left_out, of_base, one_turn

TRICKLE = Timing(ttft_s=(0.2, 0.4), tokens_per_s=2.0, tokens=20)
"""Ten seconds at two chunks a second."""
TORRENT = Timing(ttft_s=(0.05, 0.05), tokens_per_s=200.0, tokens=400)
"""What a fast model streams: for the cost of a chunk."""
_NOTE = (
    "10 s each at 2 chunks a second. The model's own first token comes after 200 to 400 ms, by chance: with few "
    "streams some tens of milliseconds are chance, too."
)
_THREADS = {32: 72, 128: 160, 512: 640, 1000: 1200}


def chunk_cost(folder: Path, report: Report, rounds: int, others: Others = nobody) -> None:
    """Processor time of a relayed chunk: eight streams of a fast model."""
    spec = partial(Spec, body=body(stream=True), connections=8, once=True, key=KEY)
    with (
        backend(TORRENT, folder / "torrent") as model,
        others(model.url, folder / "others") as beside,
        contenders(folder / "chunks", model.url) as ours,
    ):
        report.begin("the cost of a chunk")
        results = in_turn({**ours, **those_that_stream(beside)}, rounds, spec)
    costs = {name: [us_a_chunk(turn) for turn in series] for name, series in results.items()}
    rows: list[Sequence[Cell]] = []
    for name, series in results.items():
        told = [turn.result for turn in series]
        whole = f"{sum(r.answered for r in told)} of {sum(r.answered + r.incomplete + r.refused for r in told)}"
        ratio = of_base(costs[name], costs["bare hop"])
        rows.append((name, statistics.median(costs[name]), ratio, whole, generator_cell(told)))
    columns = ("", "cpu us/chunk", "of bare hop", "whole", "generator")
    report.add(flagged(Section("A relayed chunk", columns, rows, bars="cpu us/chunk")))


def us_a_chunk(turn: Turn) -> float:
    """Processor microseconds that relaying one chunk took."""
    return turn.cpu_s / max(turn.result.chunks, 1) * 1e6


def those_that_stream(servers: Mapping[str, Server]) -> Mapping[str, Server]:
    """Those that begin a stream when asked for one, warmed up by it; of the others it is said."""
    able = {}
    for name, server in servers.items():
        problem = why_no_stream(server)
        if problem is None:
            able[name] = server
        else:
            left_out(name, problem)
    return able


def why_no_stream(server: Server) -> str | None:
    """What is wrong with its stream, as far as the first event shows; None if nothing is."""
    connection = Endpoint(server.url, "primary").connect()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **server.headers}
    received = b""
    try:
        connection.request("POST", "/v1/chat/completions", body(stream=True), headers)
        response = connection.getresponse()
        while b"data:" not in received and (portion := response.read1(65536)):
            received += portion
    except (OSError, http.client.HTTPException) as problem:
        return f"{type(problem).__name__}: {problem}"
    finally:
        connection.close()
    if response.status == 200 and b"data:" in received:
        return None
    return f"it answers {response.status} with {received[:100]!r} when asked for a stream"


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many streams at once through one server, and the same asked of the model directly."""

    name: str
    count: int
    turn: Turn
    direct: Result
    rss_mib: float

    @property
    def added_ttft_ms(self) -> float:
        """What the slowest of twenty waits longer for its first event."""
        return percentile(self.turn.result.first_ms, 0.95) - percentile(self.direct.first_ms, 0.95)

    def row(self) -> Sequence[Cell]:
        """Of the table."""
        result = self.turn.result
        gap = percentile(result.gaps_ms, 0.99) - percentile(self.direct.gaps_ms, 0.99)
        missed = result.incomplete + result.refused
        figures = (result.answered, missed, self.added_ttft_ms, gap, us_a_chunk(self.turn), self.rss_mib)
        return f"{self.name}, {self.count}", *figures, generator_cell([result])


def many_streams(folder: Path, report: Report, counts: Sequence[int], others: Others = nobody) -> None:
    """Streams at once at two chunks a second: none may be incomplete."""
    crowds: list[Crowd] = []
    with backend(TRICKLE, folder / "trickle") as model, others(model.url, folder / "others") as beside:
        able = dict(those_that_stream(beside))
        for count in counts:
            threads = next((threads for most, threads in _THREADS.items() if count <= most), 2 * count)
            with contenders(folder / f"streams-{count}", model.url, threads) as ours:
                direct = run(Spec(model.url, body(stream=True), count, once=True))
                for name, server in {**ours, **able}.items():
                    report.begin(f"{count} streams, {name}")
                    crowd = _crowd(name, server, count, direct)
                    if crowd is None:
                        able.pop(name, None)
                    else:
                        crowds.append(crowd)
    columns = ("", "whole", "not whole", "added TTFT p95 (ms)", "added gap p99 (ms)", "cpu us/chunk", "RSS MiB")
    title, note = "Streams at once", _NOTE
    rows = [crowd.row() for crowd in crowds]
    report.add(flagged(Section(title, (*columns, "generator"), rows, note, plots=over_streams(crowds))))


def _crowd(name: str, server: Server, count: int, direct: Result) -> Crowd | None:
    """None for a server that does not come to an end."""
    try:
        turn = one_turn(server, Spec(server.url, body(stream=True), count, once=True, key=KEY))
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as problem:
        left_out(name, f"{count} streams: {type(problem).__name__}")
        return None
    return Crowd(name, count, turn, direct, server.rss_mib())


def over_streams(crowds: Sequence[Crowd]) -> Sequence[Plot]:
    """Processor time of a chunk, and how much later the first one comes, by the number of streams."""
    names = list(dict.fromkeys(crowd.name for crowd in crowds))
    mine = {name: [crowd for crowd in crowds if crowd.name == name] for name in names}
    unsure = {name: [n for n, crowd in enumerate(mine[name]) if is_doubtful([crowd.turn.result])] for name in names}
    cpu = [Line(name, [(c.count, us_a_chunk(c.turn)) for c in mine[name]], unsure[name]) for name in names]
    first = [Line(name, [(c.count, c.added_ttft_ms) for c in mine[name]], unsure[name]) for name in names]
    return (
        Plot("Processor time of a chunk", "count", "streams at once", "us", cpu, least=1.0),
        Plot("Added time to the first event, p95", "count", "streams at once", "ms", first, least=1.0),
    )
