"""The real embedded model, llama.cpp with SmolLM2 as ``make run`` starts it: the cold start, and the six."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ai_router.embedded.start import KEY_VARIABLE, MODEL_NAME
from benchmarks.measure import Endpoint
from benchmarks.report import Report
from benchmarks.rig import Server, router, scratch
from benchmarks.sections import Section
from benchmarks.six import QUESTIONS, SHORT, Target, once, six

_MODULE = "ai_router.embedded.llama_server"
_ANSWER_TOKENS = 64
"""A small model that rambles would otherwise be what the routes are measured by."""
_CONTEXT_TOKENS = 2_000
_LEFT_OUT: Mapping[str, str] = {
    "route COMPLEX": "its backend is a cloud, for which there is no key; the embedded model would answer instead",
    "route ENRICH": "its search is a cloud's as well",
    "throughput of the classifier": "there is none: what the head leaves open goes to the only backend",
    "a context of 8,000 tokens": "two cores take longer for it than the router waits for a plain answer; 2,000 here",
    "speculation": "nothing to speculate against, for the same reason",
}


def cold_start(report: Report) -> None:
    """From the start of the process to its first answer."""
    report.begin("cold start with the embedded model")
    with scratch() as folder, started(folder, report):
        pass


def embedded(report: Report, repetitions: int) -> None:
    """The cold start, and then of the six what has a backend; the rest is named."""
    report.begin("cold start with the embedded model")
    # llama.cpp keeps prompts that it has read, by slot: with the date in it the routed prompt is not the direct
    # one, and which of them is read anew would be chance.
    with scratch() as folder, started(folder, report, DATE_CONTEXT="off") as server:
        routed, log = Endpoint(server.url, "auto"), folder / "data/app.log"
        kinds = tuple(kind for kind in QUESTIONS if kind not in ("COMPLEX", "ENRICH"))
        target = Target(routed, model_of(server), log=log, kinds=kinds)
        six(replace(target, answer_tokens=_ANSWER_TOKENS, context_tokens=_CONTEXT_TOKENS), report, repetitions)
    note = f"In 1, 3 and 4 answers end at {_ANSWER_TOKENS} tokens. DATE_CONTEXT is off. The model has the same cores."
    report.add(Section("Left out with the embedded model", ("", "why"), list(_LEFT_OUT.items()), note))


@contextmanager
def started(folder: Path, report: Report, **settings: str) -> Iterator[Server]:
    """A router that nothing but ``settings`` was configured for, once it has answered; how long that took is told."""
    begin = time.perf_counter()
    with router(folder, flush=False, **settings) as server:
        ready_s = time.perf_counter() - begin
        answer = once(Endpoint(server.url, "auto"), SHORT, max_tokens=16)
        whole_s = time.perf_counter() - begin
        row = (f"HTTP {answer.status}", ready_s, whole_s, server.rss_mib())
        columns = ("", "listens (s)", "first answer (s)", "RSS of the largest process, MiB")
        report.add(Section("Cold start, embedded model", columns, [row]))
        yield server


def model_of(server: Server) -> Endpoint:
    """The embedded model behind a router, to be asked directly: its port and key are known to its processes alone.
    Raises LookupError."""
    for pid in server.family():
        process = Path(f"/proc/{pid}")
        command = (process / "cmdline").read_bytes().decode().split("\0")
        if _MODULE in command:
            port = command[command.index(_MODULE) + 2]
            variables = (process / "environ").read_bytes().decode().split("\0")
            key = dict(variable.partition("=")[::2] for variable in variables)[KEY_VARIABLE]
            return Endpoint(f"http://127.0.0.1:{port}", MODEL_NAME, key)
    raise LookupError("no embedded model runs behind this router")
