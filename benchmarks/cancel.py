"""How long until a backend sees that its work is not wanted any more, in each phase in which one works."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.lab import Lab, laboratory
from benchmarks.measure import p50, p99
from benchmarks.report import Report
from benchmarks.sections import Section
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, SEARCH, chunk, finds
from tests.fakes.upstream import FakeUpstream, Hang, Recorded, Reply, Stream

_STUCK = Stream([chunk({"content": "first"})], ending="hang")


@dataclass(frozen=True)
class Phase:
    """Where the request is when it ends: ``backend`` holds its call, asked for ``model``, behaving like ``does``."""

    name: str
    backend: FakeUpstream
    path: str
    model: str
    does: Reply
    plain: bool = True


def phases(lab: Lab) -> Iterator[Phase]:
    """Those in which a backend works."""
    yield Phase("deciding (the classifier's call)", lab.classifier, CHAT, "auto", Hang())
    yield Phase("searching the web", lab.xai, SEARCH, "enrich", Hang())
    yield Phase("after the search", lab.primary, CHAT, "enrich", Hang())
    yield Phase("before the first byte", lab.primary, CHAT, "primary", Hang())
    yield Phase("mid-stream", lab.primary, CHAT, "primary", _STUCK, plain=False)


def leave(client: RawClient, _lab: Lab, _name: str) -> None:
    """The client closes its connection."""
    client.socket.shutdown(socket.SHUT_RDWR)


def cancel(_client: RawClient, lab: Lab, name: str) -> None:
    """Somebody calls the cancel endpoint."""
    connection = http.client.HTTPConnection("127.0.0.1", lab.router.port, timeout=10)
    connection.request("POST", f"/v1/requests/{name}/cancel")
    connection.getresponse().read()
    connection.close()


def cancelling(report: Report, repetitions: int) -> None:
    """Phase by phase, by the client's departure and by the cancel endpoint."""
    rows = []
    with laboratory() as lab:
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
    phase.backend.on(phase.path, phase.does)
    client = RawClient(lab.router.port)
    # A question that the head leaves open, so that the classifier is asked; a new one each time.
    text = f"{name}: prove that there are infinitely many primes"
    client.send_chat(text=text, stream=stream, model=phase.model, headers=f"x-request-id: {name}\r\n")
    call = phase.backend.wait_for(phase.path)
    if phase.does is _STUCK:
        client.read_until(b"first")
    started = time.monotonic()
    end(client, lab, name)
    took_ms = _seen_ms(call, started)
    client.leave()
    return took_ms


def _seen_ms(call: Recorded, since: float) -> float:
    call.gone.wait(10)
    return ((call.disconnected_at or float("inf")) - since) * 1000
