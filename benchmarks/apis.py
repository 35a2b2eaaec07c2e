"""What a request takes in each API of clients, beside chat completions, where the backend speaks only those."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from benchmarks.backend import Timing
from benchmarks.load import p50
from benchmarks.report import Cell, Report, Section
from benchmarks.rig import Server, backend, router

TOKENS = 50
TEXT = "hello, how are you?"
_CHAT = "chat completions"
_MESSAGES = [{"role": "user", "content": TEXT}]


@dataclass(frozen=True)
class Asked:
    """A request of an API."""

    path: str
    fields: Mapping[str, Any]

    def body(self, *, stream: bool) -> bytes:
        return orjson.dumps({"model": "primary", "stream": stream, **self.fields})


APIS: Mapping[str, Asked] = {
    _CHAT: Asked("/v1/chat/completions", {"messages": _MESSAGES}),
    "Responses": Asked("/v1/responses", {"input": TEXT, "store": False}),
    "Messages": Asked("/v1/messages", {"max_tokens": 100, "messages": _MESSAGES}),
    "completions": Asked("/v1/completions", {"prompt": TEXT}),
    "Ollama's chat": Asked("/api/chat", {"messages": _MESSAGES}),
}


def apis(folder: Path, report: Report, repetitions: int) -> None:
    """Plain requests and streams of 50 chunks, one connection, the APIs in turn."""
    with (
        backend(Timing(tokens=TOKENS), folder / "primary") as primary,
        router(folder / "router", {"PRIMARY_URL": primary.url}) as server,
    ):
        report.begin("the APIs of clients")
        times: dict[tuple[str, bool], list[float]] = {(name, stream): [] for name in APIS for stream in (False, True)}
        used: dict[tuple[str, bool], float] = dict.fromkeys(times, 0.0)
        for number in range(repetitions + 1):
            for (name, stream), found in times.items():
                before = server.cpu_s()
                ms = [_ms(server, APIS[name], stream=stream) for _ in range(20)]
                if number:
                    found.extend(ms)
                    used[name, stream] += server.cpu_s() - before
    rows: list[Sequence[Cell]] = []
    for name in APIS:
        row: list[Cell] = [name]
        for stream in (False, True):
            found, base = times[name, stream], times[_CHAT, stream]
            cpu_ms = 1000 * used[name, stream] / len(found)
            row += [p50(found), p50(found) - p50(base), cpu_ms]
        rows.append(row)
    columns = ("", "plain p50", "added", "processor", "stream p50", "added", "processor")
    report.add(Section(f"Requests by API, and streams of {TOKENS} chunks (ms)", columns, rows))


def _ms(server: Server, asked: Asked, *, stream: bool) -> float:
    """One request on a connection of its own, to the end of its answer."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        started = time.perf_counter()
        connection.request("POST", asked.path, asked.body(stream=stream), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        ms = (time.perf_counter() - started) * 1000
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise RuntimeError(f"{asked.path} was answered with {response.status}")
    return ms
