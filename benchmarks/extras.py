"""What the six do not show: health, session files, the GPU's memory, the embedded model, cancelling."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ai_router.embedded.start import KEY_VARIABLE, MODEL_NAME
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.session_reader import file_name
from benchmarks.backend import Timing
from benchmarks.home_lab import QUESTIONS, SHORT, Target, six
from benchmarks.load import p50, p99
from benchmarks.report import Cell, Report, Section
from benchmarks.rig import Endpoint, Server, backend, free_port, router, scratch
from tests.chat_requests import chat_request
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, SEARCH, chunk, classifies, finds, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Recorded, Reply, Stream, fake_upstream
from tests.outcomes import outcome


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
            settings = {"PRIMARY_URL": urls[0], "ROUTER_URL": urls[1]}
            with router(folder / name.replace(" ", "-"), settings) as server:
                times = [_health_ms(server) for _ in range(5)]
                rows.append((name, p50(times), max(times)))
    report.add(Section("GET /health (ms)", ("", "p50", "slowest"), rows))


def _health_ms(server: Server) -> float:
    # The router keeps its last answer for a second.
    time.sleep(1.1)
    started = time.perf_counter()
    Endpoint(server.url).get("/health")
    return (time.perf_counter() - started) * 1000


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
        rows.append((f"{count} files", p50(writes), p99(writes), cleaning))
    columns = ("", "write p50 (ms)", "write p99 (ms)", "cleanup (ms)")
    report.add(Section("Session files; the cleanup deletes what is beyond 5,000", columns, rows))


def _file_times(sessions: SessionLogger) -> tuple[list[float], float]:
    writes = []
    response = {"role": "assistant", "content": "lorem " * 200}
    for number in range(200):
        request = chat_request("hello " * 100, session_id=f"{number:012x}", timestamp=datetime.now(UTC))
        ended = outcome(request=request, response=response)
        started = time.perf_counter()
        sessions._write(ended, None)  # noqa: SLF001 - the write alone, without the log line
        writes.append((time.perf_counter() - started) * 1000)
    started = time.perf_counter()
    sessions._cleanup()  # noqa: SLF001 - as above
    return writes, (time.perf_counter() - started) * 1000


def gpu_memory(report: Report) -> None:
    """What nvidia-smi says, where there is one."""
    if shutil.which("nvidia-smi") is None:
        return
    query = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total", "--format=csv,noheader,nounits"]
    ended = subprocess.run(query, check=False, capture_output=True, text=True, timeout=30)
    rows = [tuple(line.split(", ")) for line in ended.stdout.splitlines() if line.count(", ") == 2]
    if rows:
        report.add(Section("GPU memory (MiB)", ("", "used", "total"), rows))


_MODULE = "ai_router.embedded.llama_server"
_ANSWER_TOKENS = 64
"""The most that an answer may have: a small model that talks on would otherwise be what is measured."""
_CONTEXT_TOKENS = 2_000
_LEFT_OUT: Mapping[str, str] = {
    "route COMPLEX": "its backend is a cloud, for which there is no key; the embedded model would answer instead",
    "route ENRICH": "its search is a cloud's as well",
    "throughput of the classifier": "there is none: what the head leaves open goes to the only backend",
    "a context of 8,000 tokens": "two cores take longer for it than the router waits for a plain answer; 2,000 here",
    "speculation": "nothing to speculate against, for the same reason",
}


def cold_start(report: Report) -> None:
    """From the start of the router with the embedded model to its first answer."""
    report.begin("cold start with the embedded model")
    with scratch() as folder, started(folder, report, {}):
        pass


def embedded(report: Report, repetitions: int) -> None:
    """The cold start, and those of the six that have a backend; the others are listed."""
    report.begin("cold start with the embedded model")
    # llama.cpp keeps prompts that it has read, by slot: with the date in it the routed prompt is not the direct
    # one, and which of them is read anew would be chance.
    with scratch() as folder, started(folder, report, {"DATE_CONTEXT": "off"}) as server:
        routed, log = Endpoint(server.url, "auto"), folder / "data/app.log"
        kinds = tuple(kind for kind in QUESTIONS if kind not in ("COMPLEX", "ENRICH"))
        target = Target(routed, model_of(server), log=log, kinds=kinds)
        six(replace(target, answer_tokens=_ANSWER_TOKENS, context_tokens=_CONTEXT_TOKENS), report, repetitions)
    note = f"In 1, 3 and 4 answers end at {_ANSWER_TOKENS} tokens. DATE_CONTEXT is off. The model has the same cores."
    report.add(Section("Left out with the embedded model", ("", "why"), list(_LEFT_OUT.items()), note))


@contextmanager
def started(folder: Path, report: Report, settings: Mapping[str, str]) -> Iterator[Server]:
    """A router with the embedded model and these settings, once it has answered; how long that took is reported."""
    begin = time.perf_counter()
    with router(folder, settings, wait=False) as server:
        ready_s = time.perf_counter() - begin
        answer = Endpoint(server.url, "auto").ask(SHORT, max_tokens=16)
        whole_s = time.perf_counter() - begin
        row = (f"HTTP {answer.status}", ready_s, whole_s, server.rss_mib())
        columns = ("", "listens (s)", "first answer (s)", "RSS of the largest process, MiB")
        report.add(Section("Cold start, embedded model", columns, [row]))
        yield server


def model_of(server: Server) -> Endpoint:
    """The embedded model behind a router, to be asked directly; its port and key are read from its process. Raises
    LookupError if there is none."""
    for pid in server.family():
        process = Path(f"/proc/{pid}")
        command = (process / "cmdline").read_bytes().decode().split("\0")
        if _MODULE in command:
            port = command[command.index(_MODULE) + 3]
            variables = (process / "environ").read_bytes().decode().split("\0")
            key = dict(variable.partition("=")[::2] for variable in variables)[KEY_VARIABLE]
            return Endpoint(f"http://127.0.0.1:{port}", MODEL_NAME, key)
    raise LookupError("no embedded model runs behind this router")


@dataclass(frozen=True)
class Lab:
    """A router and its fake backends."""

    router: RunningRouter
    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream


@contextmanager
def laboratory(folder: Path, settings: Mapping[str, str]) -> Iterator[Lab]:
    """A router with these settings before fake backends that see when a connection ends, until the block ends."""
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        classifier.on(CHAT, classifies("MODERATE"))
        primary.on(CHAT, says("word"))
        xai.on("/v1/models", Plain({"data": []}))
        urls = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": "benchmark-key",
        }
        with running_router(folder, **urls, **settings) as running:
            running.wait_for_log(r"Classifier probed: .*", timeout=30)
            yield Lab(running, classifier, primary, xai)


_STUCK = Stream([chunk({"content": "first"})], ending="hang")


@dataclass(frozen=True)
class Phase:
    """Where a request for ``model`` is when it is cancelled: ``backend`` has its call, and answers it with ``reply``.

    ``plain``: the phase exists for a plain request as well as for a streamed one.
    """

    name: str
    backend: FakeUpstream
    path: str
    model: str
    reply: Reply
    plain: bool = True


def phases(lab: Lab) -> Iterator[Phase]:
    """The phases in which a backend works on a request."""
    yield Phase("deciding (the classifier's call)", lab.classifier, CHAT, "auto", Hang())
    yield Phase("searching the web", lab.xai, SEARCH, "enrich", Hang())
    yield Phase("after the search", lab.primary, CHAT, "enrich", Hang())
    yield Phase("before the first byte", lab.primary, CHAT, "primary", Hang())
    yield Phase("mid-stream", lab.primary, CHAT, "primary", _STUCK, plain=False)


def leave(client: RawClient, _lab: Lab, _name: str) -> None:
    """The client closes its connection."""
    client.socket.shutdown(socket.SHUT_RDWR)


def cancel(_client: RawClient, lab: Lab, name: str) -> None:
    """The cancel endpoint is called."""
    Endpoint(lab.router.url).post(f"/v1/requests/{name}/cancel")


def cancelling(report: Report, repetitions: int) -> None:
    """How long until a backend sees that its call is cancelled, in each phase: because the client left, and because of
    the cancel endpoint."""
    rows = []
    with scratch() as folder, laboratory(folder, {}) as lab:
        for phase in phases(lab):
            for stream in (False, True) if phase.plain else (True,):
                report.begin(f"cancelling: {phase.name}")
                left = [_once(lab, phase, leave, f"left-{n}", stream=stream) for n in range(repetitions)]
                cancelled = [_once(lab, phase, cancel, f"cancelled-{n}", stream=stream) for n in range(repetitions)]
                name = f"{phase.name}, {'streamed' if stream else 'plain'}"
                rows.append((name, p50(left), p99(left), p50(cancelled), p99(cancelled)))
    columns = ("", "client leaves: p50", "p99", "cancel call: p50", "p99 ")
    title = f"Cancelling: until the backend sees the end of it (ms, {repetitions} of each)"
    report.add(Section(title, columns, rows))


def _once(lab: Lab, phase: Phase, end: Callable[[RawClient, Lab, str], None], name: str, *, stream: bool) -> float:
    for fake in (lab.classifier, lab.primary, lab.xai):
        fake.reset()
    lab.xai.on(SEARCH, finds("Findings."))
    phase.backend.on(phase.path, phase.reply)
    client = RawClient(lab.router.port)
    # A question that the head leaves open, so that the classifier is asked; a new one each time.
    text = f"flurb gnozzle wex qanto brindlemop trask velluni {name}"
    client.send_chat(text=text, stream=stream, model=phase.model, headers=f"x-request-id: {name}\r\n")
    call = phase.backend.wait_for(phase.path)
    if phase.reply is _STUCK:
        client.read_until(b"first")
    started = time.monotonic()
    end(client, lab, name)
    took_ms = _seen_ms(call, started)
    client.leave()
    return took_ms


def _seen_ms(call: Recorded, since: float) -> float:
    call.gone.wait(10)
    return ((call.disconnected_at or float("inf")) - since) * 1000
