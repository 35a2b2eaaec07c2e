"""What the six do not show: strategies side by side, health, session files, the GPU's memory."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.session_reader import file_name
from ai_router.types import DecidedBy, Decision, Label, Outcome, SpeculationResult, Status
from benchmarks.backend import Timing
from benchmarks.home_lab import home_lab
from benchmarks.measure import Endpoint, p50
from benchmarks.report import Report
from benchmarks.rig import backend, free_port, router
from benchmarks.sections import Cell, Section, percentile
from benchmarks.six import SHORT, once, question
from tests.chat_requests import chat_request

_UNCLEAR = "what about the tall one, number {}"
"""A question that nobody can decide without asking the classifier."""


def strategies(folder: Path, report: Report, scale: float, repetitions: int) -> None:
    """From the sequential baseline to today's default, in turn: until the first event of a stream."""
    kinds = {
        "plain question": lambda _: SHORT,
        "unclear question": _UNCLEAR.format,
        "COMPLEX": lambda _: question("COMPLEX"),
    }
    with home_lab(folder, scale) as lab:
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(repetitions):
            for kind, text in kinds.items():
                for name, server in lab.routers.items():
                    report.begin(f"strategies: {name}, {kind}, {number + 1} of {repetitions}")
                    answer = once(Endpoint(server.url, "auto"), text(number), stream=True)
                    times.setdefault((name, kind), []).append(answer.first_ms)
    rows: list[Sequence[Cell]] = []
    for name in lab.routers:
        rows.append((name, *(p50(times[name, kind]) for kind in kinds)))
    note = f"Simulated backends at {scale:g} of real time; an unclear question is another each time."
    report.add(
        Section("Strategies: first event of a stream (ms, p50)", ("", *kinds), rows, note, bars="unclear question")
    )


def health_timing(folder: Path, report: Report) -> None:
    """GET /health with all backends well, one down, all down."""
    rows: list[Sequence[Cell]] = []
    with backend(Timing(), folder / "a") as primary, backend(Timing(), folder / "b") as classifier:
        nobody = f"http://127.0.0.1:{free_port()}"
        for name, urls in {
            "healthy": (primary.url, classifier.url),
            "one down": (primary.url, nobody),
            "all down": (nobody, nobody),
        }.items():
            with router(folder / name.replace(" ", "-"), PRIMARY_URL=urls[0], ROUTER_URL=urls[1]) as server:
                times = [_get_ms(server.url, "/health") for _ in range(5)]
                rows.append((name, p50(times), max(times)))
    report.add(Section("GET /health (ms)", ("", "p50", "slowest"), rows))


def _get_ms(url: str, path: str) -> float:
    # A report is kept for a second.
    time.sleep(1.1)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    started = time.perf_counter()
    connection.request("GET", path)
    connection.getresponse().read()
    taken_ms = (time.perf_counter() - started) * 1000
    connection.close()
    return taken_ms


def session_files(folder: Path, report: Report) -> None:
    """Writing a session and cleaning up, with 100, 5,000 and 50,000 files in the folder."""
    rows: list[Sequence[Cell]] = []
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for count in (100, 5_000, 50_000):
        report.begin(f"session files: {count}")
        mine = folder / str(count)
        mine.mkdir(parents=True)
        for number in range(count):
            (mine / file_name(begin + timedelta(minutes=number), f"{number:08x}")).touch()
        writes, cleaning = _file_times(SessionLogger(mine))
        rows.append((f"{count} files", percentile(writes, 0.5), percentile(writes, 0.99), cleaning))
    columns = ("", "write p50 (ms)", "write p99 (ms)", "cleanup (ms)")
    report.add(Section("Session files; the cleanup deletes what is beyond 5,000", columns, rows))


def _file_times(sessions: SessionLogger) -> tuple[list[float], float]:
    writes = []
    for number in range(200):
        outcome = _outcome(number)
        started = time.perf_counter()
        sessions._write(outcome, None)  # noqa: SLF001 - the write alone, without what it tells
        writes.append((time.perf_counter() - started) * 1000)
    started = time.perf_counter()
    sessions._cleanup()  # noqa: SLF001 - as above
    return writes, (time.perf_counter() - started) * 1000


def _outcome(number: int) -> Outcome:
    return Outcome(
        request=chat_request("hello " * 100, session_id=f"{number:012x}", timestamp=datetime.now(UTC)),
        status=Status.OK,
        route="primary",
        decision=Decision(Label.MODERATE, "primary", DecidedBy.FAST, "plain", 0.9),
        reason="plain",
        speculation=SpeculationResult.SKIPPED,
        steps=(),
        attempts=(),
        response={"role": "assistant", "content": "lorem " * 200},
        usage={"prompt_tokens": 100, "completion_tokens": 200},
        timings={"total_ms": 1.0},
        error=None,
    )


def gpu_memory(report: Report) -> None:
    """What nvidia-smi says, where there is one."""
    if shutil.which("nvidia-smi") is None:
        return
    query = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, check=False, capture_output=True, text=True, timeout=30)
    rows = [tuple(line.split(", ")) for line in told.stdout.splitlines() if line.count(", ") == 2]
    if rows:
        report.add(Section("GPU memory (MiB)", ("", "used", "total"), rows))
