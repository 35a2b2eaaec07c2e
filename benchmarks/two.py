"""Two routers on two cores against one, with one generator that spreads its connections over both."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Result, Spec, run
from benchmarks.loads import INSTANT, KEY, body
from benchmarks.report import Report
from benchmarks.rig import Server, backend, router
from benchmarks.sections import Cell, Section, latencies, percentile
from benchmarks.turns import flagged, generator_cell, of_base

CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Shared:
    """One turn of some routers behind one generator and in front of one model, which share the machine: processor
    seconds of the routers together and of the model."""

    result: Result
    routers_s: float
    model_s: float

    @property
    def cpu_ms(self) -> float:
        """The routers' processor milliseconds a request."""
        return self.routers_s / max(self.result.answered, 1) * 1000

    @property
    def cores(self) -> tuple[float, float, float]:
        """How many cores the routers, the generator and the model were using."""
        return self.routers_s / self.result.seconds, self.result.busy, self.model_s / self.result.seconds


def two_processes(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """A closed loop of plain requests through one, then through both, in turn."""
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        settings = {"PRIMARY_URL": model.url, "AI_ROUTER_API_KEYS": KEY}
        both = [running.enter_context(router(folder / name, **settings)) for name in ("first", "second")]
        found: dict[str, list[Shared]] = {"one process": [], "two processes": []}
        for number in range(rounds + 1):
            # Each of them is the one by itself every other round.
            for name, routers in (("one process", [both[number % 2]]), ("two processes", both)):
                report.begin(f"{name}, {number} of {rounds}")
                turn = _turn(routers, model, seconds)
                if number:  # the first round warms up
                    found[name].append(turn)
    report.add(two_section(found, os.cpu_count() or 1))


def _turn(routers: Sequence[Server], model: Server, seconds: float) -> Shared:
    first, *others = [server.url for server in routers]
    before = sum(server.cpu_s() for server in routers), model.cpu_s()
    result = run(Spec(first, body(stream=False), CONNECTIONS, seconds, key=KEY, more_urls=others))
    after = sum(server.cpu_s() for server in routers), model.cpu_s()
    return Shared(result, after[0] - before[0], after[1] - before[1])


def two_section(found: Mapping[str, Sequence[Shared]], cores: int) -> Section:
    """The table, and what the machine would have allowed."""
    base = [turn.result.per_second for turn in found["one process"]]
    rows: list[Sequence[Cell]] = []
    for name, turns in found.items():
        mine = [turn.result.per_second for turn in turns]
        times = [ms for turn in turns for ms in turn.result.whole_ms]
        routers, _, model = (statistics.median(part) for part in zip(*(turn.cores for turn in turns), strict=True))
        cpu = statistics.median(turn.cpu_ms for turn in turns)
        speed = statistics.median(mine), of_base(mine, base), percentile(times, 0.5), percentile(times, 0.99)
        generator = generator_cell(turn.result for turn in turns)
        rows.append((name, *speed, cpu, f"{routers:.0%}", f"{model:.0%}", generator))
    columns = ("", "requests/s", "of one", "p50 (ms)", "p99 (ms)", "cpu ms/request", "routers", "model", "generator")
    curves = latencies(
        "How long requests take",
        {n: [ms for turn in turns for ms in turn.result.whole_ms] for n, turns in found.items()},
    )
    title = f"Two processes, {CONNECTIONS} connections"
    return flagged(Section(title, columns, rows, _note(found, cores), bars="requests/s", plots=(curves,)))


def _note(found: Mapping[str, Sequence[Shared]], cores: int) -> str:
    one = statistics.median(turn.result.per_second for turn in found["one process"])
    used = statistics.median(sum(turn.cores) for turn in found["two processes"])
    each = [statistics.median(turn.cpu_ms for turn in turns) for turns in found.values()]
    times = at_best(found["one process"], cores) / one
    return (
        f"Shares are of one core. The generator and the model share the {cores} cores with the routers; with two, all "
        f"together used {used:.2f}, and the rest was idle or somebody else's. At the processor time that a request "
        f"takes of one ({each[0]:.2f} ms), no more than {times:.2f} times its rate can come of these cores; where each "
        f"has half of the connections it is {each[1]:.2f} ms. It does not show what workers of one router would do, "
        "which share their state, nor a machine with more cores."
    )


def at_best(one: Sequence[Shared], cores: int) -> float:
    """Requests a second if all cores did nothing but what a request takes of routers, generator and model."""
    each = statistics.median(sum(turn.cores) * turn.result.seconds / max(turn.result.answered, 1) for turn in one)
    return cores / each
