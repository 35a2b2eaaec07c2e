"""A plain request under other conditions, beside one without: a megabyte of history, hours of use on disk, a second
process, telemetry."""

from __future__ import annotations

import os
import random
import secrets
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import orjson

from ai_router.config import Settings
from ai_router.config_loading import load_settings
from ai_router.storage.session_logger import MAX_FILES, SessionLogger
from ai_router.storage.usage import UsageStore
from ai_router.storage.usage_rows import rows_of
from ai_router.types import Outcome
from benchmarks.backend import INSTANT, Timing
from benchmarks.load import (
    Result,
    Series,
    Spec,
    Turn,
    body,
    cpu_ms,
    generator_cell,
    lost,
    of_base,
    p50,
    p99,
    percentile,
    rates,
    ratios,
    results,
    run,
    whole_ms,
)
from benchmarks.peers import contenders
from benchmarks.report import Cell, Report, Section, flagged, latencies
from benchmarks.rig import Server, backend, in_turn, one_turn, router
from tests.chat_requests import chat_request
from tests.outcomes import FREE, outcome

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
            message = {"role": role, "content": _prose(dice, words)}
            messages.append(message)
            size += len(orjson.dumps(message)) + 1
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
        return self.long.cpu_ms - self.short.cpu_ms

    @property
    def ratio(self) -> float:
        """What is added, divided by one parse and one serialisation."""
        return self.added_ms / self.json_ms


def long_history(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """Both bodies, one connection each, in turn, through the bare hop and the router, writing the sessions included."""
    bodies = {"short": body(stream=False), "long": history()}
    given, found = bodies["long"].encode(), dict[str, list[Round]]()
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as servers:
        for number in range(rounds + 1):
            for name, server in servers.items():
                report.begin(f"history, {name}, {number} of {rounds}")
                turns = {
                    kind: one_turn(server, Spec(server.url, text, seconds=seconds), flush=True)
                    for kind, text in bodies.items()
                }
                taken = Round(**turns, json_ms=parse_and_serialise_ms(given))
                if number:  # the first round warms up
                    found.setdefault(name, []).append(taken)
    report.add(history_section(found, len(given)))


def history_section(found: Mapping[str, Sequence[Round]], size: int) -> Section:
    """The table: a row for each server and body, with the ratio in that of the long body."""
    rows: list[Sequence[Cell]] = []
    all_ms: dict[str, Sequence[float]] = {}
    for name, taken in found.items():
        added = statistics.median(r.added_ms for r in taken), statistics.median(r.ratio for r in taken)
        for kind, series in (("short", [r.short for r in taken]), ("long", [r.long for r in taken])):
            times = all_ms[f"{name}, {kind}"] = whole_ms(series)
            more = added if kind == "long" else (None, None)
            figures = (cpu_ms(series), *more, p50(times), len(times))
            rows.append((f"{name}, {kind}", *figures, generator_cell(results(series))))
    json_ms = statistics.median(r.json_ms for taken in found.values() for r in taken)
    rows.append(("orjson loads + dumps", json_ms, None, None, None, None, None))
    columns = ("", "cpu ms/request", "added", "of parse + serialise", "p50 (ms)", "requests", "generator")
    note = f"One connection, model named by the client. Target: the router's added time at most {TARGET:g} times; "
    note += "by rounds: " + ", ".join(f"{name} {_range([r.ratio for r in taken])}" for name, taken in found.items())
    title, curves = f"A history of {size:,} bytes", latencies("How long requests take", all_ms)
    return flagged(Section(title, columns, rows, note, bars="cpu ms/request", plots=(curves,)))


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


HOURS = 8
_HOURS_CONNECTIONS = 8
_ROWS_A_TRANSACTION = 500
"""As many as the router writes at most."""


def outcomes(count: int, end: datetime) -> Iterator[Outcome]:
    """One a second, the last at ``end``, oldest first; each as large as a question and an answer of some length."""
    answer = {"role": "assistant", "content": "lorem " * 200, "finish_reason": "stop"}
    for number in range(count):
        at = end - timedelta(seconds=count - 1 - number)
        request = chat_request("hello " * 100, session_id=secrets.token_hex(6), timestamp=at, client="benchmark")
        yield outcome(request=request, response=answer)


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
        if len(rows) == _ROWS_A_TRANSACTION:
            store.insert(rows, [])
            rows = []
    store.insert(rows, [])
    store.close()


def of_router(data: Path) -> Settings:
    """The settings of a router with that data folder, which say where it keeps what."""
    return load_settings({"DATA_DIR": str(data)}, dotenv=None)


def emptied(data: Path) -> None:
    """Take away what the turns so far have left, while the folder's router runs."""
    for path in of_router(data).session_path.glob("*.json"):
        path.unlink(missing_ok=True)
    store = UsageStore(of_router(data).usage_database)
    store.forget_before(f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}")
    store.close()


def eight_hours(folder: Path, report: Report, rounds: int, seconds: float, of_use: int = HOURS * 3600) -> None:
    """A closed loop of plain requests through a router with ``of_use`` seconds of use on disk, at a request a second,
    and through two with nothing, in turn."""
    report.begin(f"{of_use:,} seconds of use: writing what they leave")
    full, empty, again = folder / "full", folder / "empty", folder / "again"
    fill(full / "data", of_use)
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        settings = {"PRIMARY_URL": model.url}
        servers = {
            "nothing on disk": running.enter_context(router(empty, settings)),
            # What two that are alike differ by.
            "nothing on disk, another": running.enter_context(router(again, settings)),
            f"{of_use / 3600:g} hours on disk": running.enter_context(router(full, settings)),
        }
        found: dict[str, list[Turn]] = {name: [] for name in servers}
        for number in range(rounds + 1):
            for data in (empty, again):
                emptied(data / "data")
            # Each is first every other round.
            for name, server in list(servers.items())[:: 1 if number % 2 else -1]:
                report.begin(f"hours, {name}, {number} of {rounds}")
                spec = Spec(server.url, body(stream=False), _HOURS_CONNECTIONS, seconds)
                turn = one_turn(server, spec, flush=True)
                if number:  # the first round warms up
                    found[name].append(turn)
        report.add(hours_section(found, _left(full / "data")))


def _left(data: Path) -> str:
    """What lies in a data folder at the end."""
    files = sum(1 for _ in of_router(data).session_path.glob("*.json"))
    return f"{files:,} session files and a usage database of {(data / 'usage.db').stat().st_size / 1e6:.0f} MB"


def hours_section(found: Mapping[str, Series], left: str) -> Section:
    """The table: p50 and p99 of all turns, and the ratios to the first row within a turn."""
    base = next(iter(found.values()))
    rows: list[Sequence[Cell]] = []
    for name, series in found.items():
        times = whole_ms(series)
        of_first = (None, None) if series is base else (_ratio(series, base, 0.5), _ratio(series, base, 0.99))
        figures = (p50(times), p99(times), *of_first, len(times))
        rows.append((name, *figures, generator_cell(results(series))))
    columns = ("", "p50 (ms)", "p99 (ms)", "p50 of the first", "p99 of the first", "requests", "generator")
    note = f"{_HOURS_CONNECTIONS} connections; ratios are medians of those within a turn. At the end there were {left}."
    curves = latencies("How long requests take", {name: whole_ms(series) for name, series in found.items()})
    return flagged(Section("Eight hours of sessions on disk", columns, rows, note, plots=(curves,)))


def _ratio(series: Series, base: Series, share: float) -> float:
    mine, its = ([percentile(turn.result.whole_ms, share) for turn in turns] for turns in (series, base))
    return of_base(mine, its)


_TWO_CONNECTIONS = 32


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
    """A closed loop of plain requests through one router, spread over two that share nothing, and through one with two
    workers that share their state, in turn."""
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        settings = {"PRIMARY_URL": model.url}
        both = [running.enter_context(router(folder / name, settings)) for name in ("first", "second")]
        workers = running.enter_context(router(folder / "workers", {**settings, "WORKERS": "2"}))
        found: dict[str, list[Shared]] = {"one process": [], "two processes": [], "two workers": []}
        for number in range(rounds + 1):
            # Each of them is the one by itself every other round.
            chosen = (("one process", [both[number % 2]]), ("two processes", both), ("two workers", [workers]))
            for name, routers in chosen:
                report.begin(f"{name}, {number} of {rounds}")
                turn = _shared_turn(routers, model, seconds)
                if number:  # the first round warms up
                    found[name].append(turn)
    report.add(two_section(found, os.cpu_count() or 1))


def _shared_turn(routers: Sequence[Server], model: Server, seconds: float) -> Shared:
    first, *others = [server.url for server in routers]
    before = sum(server.cpu_s() for server in routers), model.cpu_s()
    result = run(Spec(first, body(stream=False), _TWO_CONNECTIONS, seconds, more_urls=others))
    after = sum(server.cpu_s() for server in routers), model.cpu_s()
    return Shared(result, after[0] - before[0], after[1] - before[1])


def two_section(found: Mapping[str, Sequence[Shared]], cores: int) -> Section:
    """The table, and what the machine would have allowed."""
    base = [turn.result.per_second for turn in found["one process"]]
    rows: list[Sequence[Cell]] = []
    all_ms = {name: [ms for turn in turns for ms in turn.result.whole_ms] for name, turns in found.items()}
    for name, turns in found.items():
        mine = [turn.result.per_second for turn in turns]
        routers, _, model = (statistics.median(part) for part in zip(*(turn.cores for turn in turns), strict=True))
        speed = statistics.median(mine), of_base(mine, base)
        times = p50(all_ms[name]), p99(all_ms[name])
        used = statistics.median(turn.cpu_ms for turn in turns), f"{routers:.0%}", f"{model:.0%}"
        rows.append((name, *speed, *times, *used, generator_cell(turn.result for turn in turns)))
    columns = ("", "requests/s", "of one", "p50 (ms)", "p99 (ms)", "cpu ms/request", "routers", "model", "generator")
    title, curves = f"Two processes, {_TWO_CONNECTIONS} connections", latencies("How long requests take", all_ms)
    return flagged(Section(title, columns, rows, _two_note(found, cores), bars="requests/s", plots=(curves,)))


def _two_note(found: Mapping[str, Sequence[Shared]], cores: int) -> str:
    one = statistics.median(turn.result.per_second for turn in found["one process"])
    used = statistics.median(sum(turn.cores) for turn in found["two processes"])
    each = [statistics.median(turn.cpu_ms for turn in turns) for turns in found.values()]
    times = at_best(found["one process"], cores) / one
    return (
        f"Shares are of one core. The generator and the model share the {cores} cores with the routers; with two, all "
        f"together used {used:.2f}, and the rest was idle or somebody else's. At the processor time that a request "
        f"takes of one ({each[0]:.2f} ms), no more than {times:.2f} times its rate can come of these cores; where each "
        f"has half of the connections it is {each[1]:.2f} ms. The two workers are one router, and share their state "
        "through a Valkey of its own. It does not show a machine with more cores."
    )


def at_best(one: Sequence[Shared], cores: int) -> float:
    """Requests a second if all cores did nothing but what a request takes of routers, generator and model."""
    each = statistics.median(sum(turn.cores) * turn.result.seconds / max(turn.result.answered, 1) for turn in one)
    return cores / each


_TRACED = {"TRACING": "on", "LOG_FORMAT": "json"}
TELEMETRY: Mapping[str, Mapping[str, str]] = {
    "off": {"TELEMETRY": "off"},
    "on": {},
    "on, 1 of 10 traced": {**_TRACED, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "on, all traced": _TRACED,
}
"""The settings that are compared; "on" is the default."""
_TELEMETRY_CONNECTIONS = 32


def telemetry(folder: Path, report: Report, rounds: int, seconds: float) -> None:
    """A closed loop of plain requests through a router for each of these settings, in turn."""
    report.begin("telemetry")
    with ExitStack() as running:
        model = running.enter_context(backend(Timing(), folder / "instant"))
        servers = {}
        for number, (name, settings) in enumerate(TELEMETRY.items()):
            backends = {"PRIMARY_URL": model.url, "OTEL_EXPORTER_OTLP_ENDPOINT": model.url}
            servers[name] = running.enter_context(router(folder / str(number), {**backends, **settings}))
        spec = partial(Spec, body=body(stream=False), connections=_TELEMETRY_CONNECTIONS, seconds=seconds)
        report.add(telemetry_section(in_turn(servers, rounds, spec)))


def telemetry_section(found: Mapping[str, Series]) -> Section:
    """The table, with the ratios of the rates to those without telemetry within a turn."""
    base = rates(found["off"])
    rows: list[Sequence[Cell]] = []
    for name, series in found.items():
        of_off = ratios(rates(series), base)
        figures = (statistics.median(of_off), percentile(of_off, 0.1), percentile(of_off, 0.9), cpu_ms(series))
        rows.append((name, statistics.median(rates(series)), *figures, lost(series), generator_cell(results(series))))
    columns = ("", "requests/s", "of off", "10%", "90%", "cpu ms/request", "lost", "generator")
    note = f"{_TELEMETRY_CONNECTIONS} connections. Off: the log and session files, and nothing else."
    return flagged(Section("Telemetry", columns, rows, note, bars="requests/s"))
