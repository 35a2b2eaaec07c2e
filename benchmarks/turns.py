"""Servers loaded in turn, and whether the generator could keep up with them."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.load import Result, Spec, run
from benchmarks.rig import Server
from benchmarks.sections import Section

BUSY = 0.8
"""Beyond this share of a core the generator waits for itself as much as for a server."""
BUSY_MARK = "!"
BUSY_NOTE = f"{BUSY_MARK} more than {BUSY:.0%} of a core: such a row is the generator's limit, not the server's."


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did in one turn, and the processor seconds that it took."""

    result: Result
    cpu_s: float


Series = Sequence[Turn]


def in_turn(servers: Mapping[str, Server], rounds: int, spec: Callable[[str], Spec]) -> Mapping[str, Series]:
    """Each server once a round; the first round warms up and does not count. ``spec`` is given a server's address.

    A server that ends or hangs meanwhile is left out of what is returned.
    """
    found: dict[str, list[Turn]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name in list(found):
            try:
                turn = one_turn(servers[name], spec(servers[name].url))
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
                left_out(name, f"the load did not come to its end ({type(problem).__name__})")
                del found[name]
                continue
            if number:
                found[name].append(turn)
    return found


def left_out(name: str, why: str) -> None:
    """Say that a contender is missing."""
    print(f"  {name} is left out: {why}", file=sys.stderr)


def one_turn(server: Server, spec: Spec) -> Turn:
    """One load of one server, with the headers that it wants."""
    before = server.cpu_s()
    result = run(replace(spec, headers=dict(server.headers)))
    return Turn(result, server.cpu_s() - before)


def rates(series: Series) -> list[float]:
    """Requests a second, turn by turn."""
    return [turn.result.per_second for turn in series]


def whole_ms(series: Series) -> list[float]:
    """How long each request took, of all turns."""
    return [ms for turn in series for ms in turn.result.whole_ms]


def cpu_ms(series: Series) -> float:
    """Processor milliseconds an answered request, median of the turns."""
    return statistics.median(turn.cpu_s / max(turn.result.answered, 1) * 1000 for turn in series)


def lost(series: Series) -> int:
    """Requests that had no whole answer."""
    return sum(turn.result.incomplete + turn.result.refused for turn in series)


def of_base(mine: Sequence[float], base: Sequence[float]) -> float:
    """Median of the ratios within a turn, so that whatever the machine does to one it does to both."""
    return statistics.median(value / its for value, its in zip(mine, base, strict=True) if its)


def busiest(results: Iterable[Result]) -> float:
    """The largest share of a core that the generator used."""
    return max((result.busy for result in results), default=0.0)


def is_doubtful(results: Iterable[Result]) -> bool:
    """Whether they tell of the generator more than of the server."""
    return busiest(results) > BUSY


def generator_cell(results: Iterable[Result]) -> str:
    """The generator's share for a row, marked where the row is not the server's."""
    share = busiest(results)
    return f"{share:.0%}" + (f" {BUSY_MARK}" if share > BUSY else "")


def flagged(section: Section) -> Section:
    """The section, which says what the mark means if a row has it."""
    cells = [cell for row in section.rows for cell in row]
    marked = any(isinstance(cell, str) and cell.endswith(f"% {BUSY_MARK}") for cell in cells)
    return replace(section, note=f"{section.note} {BUSY_NOTE}".strip()) if marked else section
