"""Two checkouts beside each other in one run: ``Benchmark --compare PATH``.

In each round both routers are started anew, each before a simulated model of its own, and take turns figure by figure.
So whatever the machine does to one it does to the other: compare the ratios, not the figures of two runs. Of the other
checkout only ``.venv/bin/ai-router serve`` is used.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from benchmarks.backend import INSTANT, Timing
from benchmarks.load import Result, Spec, body, p50, p99, ratios, run
from benchmarks.report import Cell, Report, Section, shown
from benchmarks.rig import (
    COMMAND,
    LOADING_S,
    ROOT,
    Endpoint,
    Server,
    backend,
    flush_sessions,
    one_turn,
    router,
    set_timing,
)
from tests.fakes.clients import RawClient
from tests.fakes.router import eventually

OTHER, THIS = "other", "this"
BEGIN_PER_S = 100
"""How many streams begin a second."""
CHUNKS_PER_S = 1_600
"""Of all streams together, so that each number of streams is about the same load."""
_SLOWEST, _FASTEST = 2.0, 200.0
"""Chunks a second of one stream; these limits go before."""
_FIRST_TOKEN_S = 0.1
_ENDLESS = 100_000
"""Tokens of a stream that goes on until its model is given another timing."""
_CANCELS = 30
_REFUSED_S = 3.0
"""So much later than it should be the last stream may begin; later it counts as refused."""


@dataclass(frozen=True)
class Side:
    """One of the two: its command, what is set for it beyond its backend, and where it comes from."""

    command: Path
    settings: Mapping[str, str]
    about: str


def other_side(checkout: Path, settings: Mapping[str, str]) -> Side:
    """The router of another checkout. Raises FileNotFoundError if nothing is installed there."""
    command = checkout.resolve() / ".venv/bin/ai-router"
    if not command.is_file():
        raise FileNotFoundError(f"{command} does not exist: run `make setup` in that checkout")
    with_settings = ", with " + " ".join(f"{name}={value}" for name, value in settings.items()) if settings else ""
    return Side(command, settings, f"{checkout} at {_commit(checkout)}{with_settings}")


def this_side() -> Side:
    """The router of this checkout, with its defaults."""
    return Side(COMMAND, {}, f"at {_commit(ROOT)}")


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "an unknown commit"
    return ended.stdout.strip()


@dataclass
class Entrant:
    """A side in one round: its running router and model, and its figures so far, by their names in the table."""

    server: Server
    model: Server
    figures: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    """Requests that were refused or broken off."""
    busy: float = 0.0
    """The largest share of a core that the load generator used."""

    def count(self, result: Result) -> None:
        """Keep what a load says beside its figures."""
        self.lost += result.incomplete + result.refused
        self.busy = max(self.busy, result.busy)


def compare(folder: Path, report: Report, other: Side, rounds: int, seconds: float, streams: Sequence[int]) -> None:
    """All figures of both, ``rounds`` times; a load, and what is measured of streams, lasts ``seconds``."""
    sides = {OTHER: other, THIS: this_side()}
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
    busy = 0.0
    with ExitStack() as running:
        models = {name: running.enter_context(backend(INSTANT, folder / name / "model")) for name in sides}
        for number in range(rounds):
            report.begin(f"comparing, round {number + 1} of {rounds}")
            # Each is first every other round.
            order = list(sides)[:: 1 if number % 2 else -1]
            entrants = _round({name: sides[name] for name in order}, models, folder / str(number), seconds, streams)
            for name, entrant in entrants.items():
                found[name].append(entrant.figures)
                busy = max(busy, entrant.busy)
    report.add(compared(found, _note(sides, rounds, busy)))


def _round(
    sides: Mapping[str, Side], models: Mapping[str, Server], folder: Path, seconds: float, streams: Sequence[int]
) -> Mapping[str, Entrant]:
    steps: list[Callable[[Entrant], None]] = [
        lambda entrant: measure_rest(entrant, seconds),
        *(partial(measure_plain, connections=connections, seconds=seconds) for connections in (1, 32)),
        measure_cancelling,
        *(partial(measure_streams, count=count, seconds=seconds) for count in streams),
        measure_end,
    ]
    with ExitStack() as running:
        entrants = {name: _started(running, side, models[name], folder / name) for name, side in sides.items()}
        time.sleep(LOADING_S)
        for step in steps:
            for entrant in entrants.values():
                step(entrant)
        return entrants


def _started(running: ExitStack, side: Side, model: Server, folder: Path) -> Entrant:
    begin = time.perf_counter()
    settings = {"PRIMARY_URL": model.url, **side.settings}
    server = running.enter_context(router(folder, settings, wait=False, command=side.command))
    answer = Endpoint(server.url, "primary").ask("hello")
    if answer.status != 200:
        raise RuntimeError(f"{side.about} answers {answer.status}: {answer.body[:200]!r}")
    return Entrant(server, model, {"cold start, to the first answer (s)": time.perf_counter() - begin})


def measure_rest(entrant: Entrant, seconds: float) -> None:
    """The memory before any load; then a short load that warms up and does not count."""
    entrant.figures["RSS at rest (MiB)"] = entrant.server.rss_mib()
    one_turn(entrant.server, Spec(entrant.server.url, body(stream=False), 8, seconds / 3), flush=True)


def measure_plain(entrant: Entrant, connections: int, seconds: float) -> None:
    """A closed loop of plain requests."""
    turn = one_turn(entrant.server, Spec(entrant.server.url, body(stream=False), connections, seconds), flush=True)
    entrant.count(turn.result)
    name = f"plain request, {connections} connection{'s' if connections > 1 else ''}"
    entrant.figures[f"{name}: p50 (ms)"] = p50(turn.result.whole_ms)
    entrant.figures[f"{name}: p99 (ms)"] = p99(turn.result.whole_ms)
    entrant.figures[f"{name}: requests/s"] = turn.result.per_second
    entrant.figures[f"{name}: CPU (ms)"] = turn.cpu_ms


def measure_cancelling(entrant: Entrant) -> None:
    """From a client that closes its connection mid-stream until the model sees its own connection end."""
    set_timing(entrant.model, Timing(tokens_per_s=20, tokens=_ENDLESS))
    times = [_cancelled_ms(entrant, number) for number in range(_CANCELS)]
    set_timing(entrant.model, INSTANT)
    entrant.figures["cancelling a stream: p50 (ms)"] = p50(times)
    entrant.figures["cancelling a stream: p99 (ms)"] = p99(times)


def _cancelled_ms(entrant: Entrant, already: int) -> float:
    """One cancellation, after so many; infinite if the model does not see it within five seconds."""
    client = RawClient(urlsplit(entrant.server.url).port or 80)
    client.send_chat(stream=True, model="primary")
    client.read_until(b"data:")
    left = time.monotonic()
    client.leave()
    ended = eventually(lambda: _seen(entrant.model).left_early[already:], 5)
    return (ended[0] - left) * 1000 if ended else math.inf


def measure_streams(entrant: Entrant, count: int, seconds: float) -> None:
    """The processor time of a chunk while ``count`` streams are under way, after all have begun."""
    speed = max(_SLOWEST, min(_FASTEST, CHUNKS_PER_S / count))
    set_timing(entrant.model, Timing((_FIRST_TOKEN_S, _FIRST_TOKEN_S), speed, _ENDLESS))
    spec = Spec(entrant.server.url, body(stream=True), count, once=True, begin_per_s=BEGIN_PER_S)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run, spec)
        try:
            _wait_until_begun(entrant.model, count, load)
            before, before_s = _seen(entrant.model), entrant.server.cpu_s()
            time.sleep(seconds)
            after, after_s = _seen(entrant.model), entrant.server.cpu_s()
        finally:
            # Ends the streams.
            set_timing(entrant.model, INSTANT)
        entrant.count(load.result())
    flush_sessions(entrant.server)
    chunks = after.chunks - before.chunks
    name = f"{count:,} streams"
    entrant.figures[f"{name}: under way"] = after.seen - len(after.left_early)
    entrant.figures[f"{name}: CPU of a chunk (us)"] = (after_s - before_s) / chunks * 1e6 if chunks else math.nan


def measure_end(entrant: Entrant) -> None:
    """The memory after all loads, and how many requests had no whole answer."""
    entrant.figures["RSS after the load (MiB)"] = entrant.server.rss_mib()
    entrant.figures["requests refused or broken off"] = entrant.lost


def _wait_until_begun(model: Server, count: int, load: Future[Result]) -> None:
    """Until the model has been asked for so many streams, or no more are to be expected, since some were refused."""
    eventually(lambda: load.done() or _seen(model).seen >= count, count / BEGIN_PER_S + _REFUSED_S)
    time.sleep(2 * _FIRST_TOKEN_S)


@dataclass(frozen=True)
class _Seen:
    """What a model has been asked for since it has its timing."""

    seen: int
    left_early: Sequence[float]
    chunks: int


def _seen(model: Server) -> _Seen:
    return _Seen(**orjson.loads(Endpoint(model.url).get("/_seen")))


def compared(found: Mapping[str, Sequence[Mapping[str, float]]], note: str) -> Section:
    """The table: medians over the rounds, the median of the ratios within a round, and from where to where each goes.

    ``found`` has the figures of each round by their names, of both sides; NaN where one could not be measured.
    """
    rows: list[Sequence[Cell]] = []
    for figure in found[THIS][0]:
        other, mine = ([figures.get(figure, math.nan) for figures in found[side]] for side in (OTHER, THIS))
        columns = [_known(values) for values in (other, mine, ratios(mine, other))]
        rows.append((figure, *(_median(values) for values in columns), *(_spread(values) for values in columns)))
    spreads = ("other: spread", "this: spread", "ratio: spread")
    return Section("This checkout beside another", ("figure", OTHER, THIS, "ratio", *spreads), rows, note)


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values)) if values else math.nan


def _spread(values: Sequence[float]) -> str | None:
    return f"{shown(float(min(values)))} to {shown(float(max(values)))}" if values else None


def _note(sides: Mapping[str, Side], rounds: int, busy: float) -> str:
    return (
        f"other: {sides[OTHER].about}. this: {sides[THIS].about}. Medians of {rounds} rounds; ratio: this divided by "
        f"other within a round. CPU is the router's. Streams begin at {BEGIN_PER_S} a second; their CPU is counted "
        f"while all that were admitted are under way. The load generator used at most {busy:.0%} of a core."
    )
