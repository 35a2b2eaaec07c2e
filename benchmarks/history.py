"""What a megabyte of history costs beside a short request, and beside reading and writing that JSON once."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.backend import Timing
from benchmarks.load import Spec
from benchmarks.loads import KEY, body, contenders
from benchmarks.measure import settled
from benchmarks.report import Report
from benchmarks.rig import Server, backend
from benchmarks.sections import Cell, Section, latencies, percentile
from benchmarks.turns import Turn, flagged, generator_cell, one_turn

BYTES = 1_000_000
TARGET = 3.0
"""The router may take so many times what one parse and one serialisation of the body take."""
_WORDS = ("the", "of", "and", "a", "route", "model", "answer", "because", "which", "latency", "8,192", "it's")
_FOREIGN = ("naïve", "“quoted”", "größer", "déjà")


def history(length: int = BYTES) -> str:
    """A request with about ``length`` bytes of conversation: short questions, long answers, some code with newlines and
    quotation marks in it; the same each time."""
    dice = random.Random(1)
    messages: list[Mapping[str, str]] = [{"role": "system", "content": "You are a helpful assistant."}]
    size = 0
    while size < length:
        for role, words in (("user", dice.randint(5, 120)), ("assistant", dice.randint(60, 600))):
            said = {"role": role, "content": _prose(dice, words)}
            messages.append(said)
            size += len(orjson.dumps(said)) + 1
    messages.append({"role": "user", "content": "And what follows from that?"})
    return orjson.dumps({"model": "primary", "messages": messages}).decode()


def _prose(dice: random.Random, words: int) -> str:
    # A third has letters beyond ASCII, which orjson and Python treat otherwise than the rest.
    text = " ".join(dice.choices(_WORDS + (_FOREIGN if dice.random() < 1 / 3 else ()), k=words))
    return text if dice.random() < 0.7 else f'{text}\n```python\nprint("{text[:60]}")\n\treturn {{"a": 1}}\n```\n'


def parse_and_serialise_ms(given: bytes, repetitions: int = 20) -> float:
    """Processor milliseconds of one ``orjson.loads`` and one ``orjson.dumps`` of it, the median."""
    taken = []
    for _ in range(repetitions):
        before = time.process_time()
        orjson.dumps(orjson.loads(given))
        taken.append((time.process_time() - before) * 1000)
    return statistics.median(taken)


@dataclass(frozen=True, slots=True)
class Round:
    """One server's turns with the short body and the long one, and the JSON's own cost in the same round."""

    short: Turn
    long: Turn
    json_ms: float

    @property
    def added_ms(self) -> float:
        """Processor milliseconds a request that the long body adds."""
        return _cpu_ms(self.long) - _cpu_ms(self.short)

    @property
    def ratio(self) -> float:
        """That, beside one parse and one serialisation."""
        return self.added_ms / self.json_ms


def _cpu_ms(turn: Turn) -> float:
    return turn.cpu_s / max(turn.result.answered, 1) * 1000


def long_history(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """Both bodies, one connection each, in turn, through the bare hop and the router, what they save included."""
    bodies = {"short": body(stream=False), "long": history()}
    given, found = bodies["long"].encode(), dict[str, list[Round]]()
    with backend(Timing(tokens=14), folder / "instant") as model, contenders(folder, model.url) as servers:
        for number in range(rounds + 1):
            for name, server in servers.items():
                report.begin(f"history, {name}, {number} of {rounds}")
                turns = {kind: _turn(server, text, seconds) for kind, text in bodies.items()}
                taken = Round(**turns, json_ms=parse_and_serialise_ms(given))
                if number:  # the first round warms up
                    found.setdefault(name, []).append(taken)
    report.add(history_section(found, len(given)))


def _turn(server: Server, text: str, seconds: float) -> Turn:
    """A load of one connection, with what is written behind the requests' back; the writing of a megabyte would be
    counted with the next turn otherwise."""
    before = server.cpu_s()
    result = one_turn(server, Spec(server.url, text, seconds=seconds, key=KEY)).result
    settled(server.url, KEY)
    return Turn(result, server.cpu_s() - before)


def history_section(found: Mapping[str, Sequence[Round]], size: int) -> Section:
    """The table: a row for each server and body, and the ratio in the long one's."""
    rows: list[Sequence[Cell]] = []
    all_ms: dict[str, Sequence[float]] = {}
    for name, taken in found.items():
        added = statistics.median(r.added_ms for r in taken), statistics.median(r.ratio for r in taken)
        for kind, turns in (("short", [r.short for r in taken]), ("long", [r.long for r in taken])):
            times = all_ms[f"{name}, {kind}"] = [ms for turn in turns for ms in turn.result.whole_ms]
            cpu = statistics.median(_cpu_ms(turn) for turn in turns)
            more = added if kind == "long" else (None, None)
            generator = generator_cell(turn.result for turn in turns)
            rows.append((f"{name}, {kind}", cpu, *more, percentile(times, 0.5), len(times), generator))
    json_ms = statistics.median(r.json_ms for taken in found.values() for r in taken)
    rows.append(("orjson loads + dumps", json_ms, None, None, None, None, None))
    columns = ("", "cpu ms/request", "added", "of parse + serialise", "p50 (ms)", "requests", "generator")
    note = f"One connection, model named by the client. Target: the router's added time at most {TARGET:g} times; "
    note += "by rounds: " + ", ".join(f"{name} {_range([r.ratio for r in taken])}" for name, taken in found.items())
    title, curves = f"A history of {size:,} bytes", latencies("How long requests take", all_ms)
    return flagged(Section(title, columns, rows, note, bars="cpu ms/request", plots=(curves,)))


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
