"""What it costs to share state with other processes, and how fast a cancel reaches another one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson

from benchmarks.backend import INSTANT
from benchmarks.load import Spec, p50, p99, results, whole_ms
from benchmarks.report import Cell, Report, Section, latencies
from benchmarks.rig import Endpoint, Server, backend, in_turn, router
from tests.fakes.clients import RawClient
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, chunk
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import Stream, fake_upstream
from tests.fakes.valkey import RunningValkey, running_valkey

_KEY = "benchmark-key-of-the-environment"
_LIMITS = ("--rpm", "1000000", "--tpm", "1000000000", "--concurrency", "100")
_SECOND_TURN = orjson.dumps(
    {
        "messages": [
            {"role": "user", "content": "hello, how are you?"},
            {"role": "assistant", "content": "Fine, and you?"},
            {"role": "user", "content": "thanks, fine as well"},
        ]
    }
).decode()
"""What the turn before led to is looked up."""
_STUCK = Stream([chunk({"content": "first"})], ending="hang")


def shared_state(folder: Path, report: Report, rounds: int, seconds: float, cancels: int) -> None:
    """What sharing adds to a request, and cancelling across two routers."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_valkey(folder) as valkey:
        _added(folder, report, rounds, seconds, valkey)
        _cancelling(folder, report, cancels, valkey)


def _added(folder: Path, report: Report, rounds: int, seconds: float, valkey: RunningValkey) -> None:
    database = f"sqlite:///{folder / 'keys.db'}"
    with ExitStack() as running:
        model = running.enter_context(backend(INSTANT, folder / "instant"))
        alone = {"PRIMARY_URL": model.url, "AI_ROUTER_API_KEYS": _KEY}
        shared = {**alone, "REDIS_URL": valkey.url}
        virtual = {**shared, "VIRTUAL_KEYS": "on", "DATABASE_URL": database}
        own = {"Authorization": f"Bearer {_KEY}"}

        def started(name: str, settings: dict[str, str]) -> Server:
            return replace(running.enter_context(router(folder / name, settings)), headers=own)

        servers = {"alone": started("alone", alone), "shared": started("shared", shared)}
        _, secret = new_key(database, *_LIMITS)
        limited = {"Authorization": f"Bearer {secret}"}
        servers["shared, a key with limits"] = replace(started("virtual", virtual), headers=limited)
        report.begin("what shared state costs")
        found = in_turn(servers, rounds, partial(Spec, body=_SECOND_TURN, seconds=seconds))
    times = {name: whole_ms(series) for name, series in found.items()}
    base = p50(times["alone"])
    rows: list[Sequence[Cell]] = [(name, p50(ms), p50(ms) - base, p99(ms), len(ms)) for name, ms in times.items()]
    refused = sum(result.refused for series in found.values() for result in results(series))
    columns = ("", "p50 (ms)", "added", "p99 (ms)", "requests")
    note = f"The second turn of a conversation, whose first is looked up; one connection. {refused} were refused."
    report.add(Section("Shared state", columns, rows, note, plots=(latencies("How long requests take", times),)))


def _cancelling(folder: Path, report: Report, cancels: int, valkey: RunningValkey) -> None:
    """A stream at one router, cancelled at the other, until the backend sees the end of it."""
    times = []
    with fake_upstream() as primary, ExitStack() as running:
        settings = {"PRIMARY_URL": primary.url, "REDIS_URL": valkey.url}
        one, other = (running.enter_context(running_router(folder / name, **settings)) for name in ("one", "other"))
        if not eventually(lambda: orjson.loads(other.get("/health")[2])["shared"]["processes"] >= 2):
            raise RuntimeError("the routers do not know of each other")
        report.begin("cancelling across routers")
        for number in range(cancels):
            primary.reset()
            primary.on(CHAT, _STUCK)
            client, name = RawClient(one.port), f"far-{number}"
            client.send_chat(stream=True, model="primary", headers=f"x-request-id: {name}\r\n")
            call = primary.wait_for(CHAT)
            client.read_until(b"first")
            started = time.monotonic()
            Endpoint(other.url).post(f"/v1/requests/{name}/cancel")
            call.gone.wait(10)
            times.append(((call.disconnected_at or float("inf")) - started) * 1000)
            client.leave()
    row = ("a stream at another router", p50(times), p99(times), max(times))
    title = f"Cancelling across routers: until the backend sees the end of it (ms, {cancels} of them)"
    report.add(Section(title, ("", "p50", "p99", "longest"), [row]))
