"""Several workers in one router, with the Valkey that it starts for them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.test_replicas import shared_state
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, anew, chunk, says
from tests.fakes.process import children, workers
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Stream, fake_upstream

WORKERS = 3


@dataclass
class Lab:
    router: RunningRouter
    primary: FakeUpstream


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fake_upstream() as primary:
        settings = {"PRIMARY_URL": primary.url, "WORKERS": str(WORKERS), "LOG_MAX_MB": "1"}
        with running_router(tmp_path_factory.mktemp("workers"), **settings) as router:
            assert eventually(lambda: shared_state(router) == {"ok": True, "processes": WORKERS}, 30)
            yield Lab(router, primary)


@pytest.fixture(autouse=True)
def well(lab: Lab) -> None:
    lab.primary.reset()
    lab.primary.on(CHAT, says("from ", "the ", "primary"))


def counted(router: RunningRouter) -> int:
    total: int = orjson.loads(router.get("/api/usage")[2])["total"]["requests"]
    return total


def test_all_answer_and_all_is_counted_once(lab: Lab) -> None:
    before = counted(lab.router)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: lab.router.chat(anew()), range(60)))
    assert {status for status, _, _ in answers} == {200}
    assert counted(lab.router) == before + 60
    assert len({headers["x-session-id"] for _, headers, _ in answers}) == 60
    for _, headers, _ in answers:
        assert lab.router.session(headers["x-session-id"])["status"] == "ok"
    in_metrics = re.findall(rb"^ai_router_requests_total\{.*\} (\S+)", lab.router.get("/metrics")[2], re.MULTILINE)
    assert sum(map(float, in_metrics)) == before + 60


def test_more_than_one_of_them_has_a_share(lab: Lab) -> None:
    """Of connections that are open at the same time."""
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    before = sockets_of_workers(lab.router)
    clients = [RawClient(lab.router.port) for _ in range(24)]
    for client in clients:
        client.send_chat(text=anew(), stream=True)
    for client in clients:
        client.read_until(b"first")
    gained = [now - then for now, then in zip(sockets_of_workers(lab.router), before, strict=True)]
    for client in clients:
        client.leave()
    # Each stream is two sockets.
    assert min(gained) >= 2, gained


def sockets_of_workers(router: RunningRouter) -> list[int]:
    return [sum(link.startswith("socket:") for link in open_files(pid)) for pid in workers(router)]


def open_files(pid: int) -> list[str]:
    return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]


def test_a_cancel_reaches_whichever_has_the_stream(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    for number in range(6):
        client = RawClient(lab.router.port)
        client.send_chat(text=anew(), stream=True, headers=f"x-request-id: any-of-them-{number}\r\n")
        client.read_until(b"first")
        connection = lab.router.connection()
        connection.request("POST", f"/v1/requests/any-of-them-{number}/cancel")
        assert connection.getresponse().status == 200
        connection.close()
        client.read_until(b"request_cancelled")
        client.leave()


def test_one_that_is_killed_takes_only_its_own_with_it(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    clients = [RawClient(lab.router.port) for _ in range(12)]
    for client in clients:
        client.send_chat(text=anew(), stream=True)
        client.read_until(b"first")
    before = workers(lab.router)
    os.kill(before[0], signal.SIGKILL)
    lab.primary.on(CHAT, says("well"))
    assert eventually(lambda: len(set(workers(lab.router)) - set(before)) == 1)
    for _ in range(12):
        assert lab.router.chat(anew())[0] == 200
    # Those of the others still stream; those of the killed one have ended, and hang nowhere.
    for client in clients:
        client.socket.setblocking(False)
    ended = [client for client in clients if is_closed(client)]
    for client in clients:
        client.leave()
    assert len(ended) < len(clients)
    assert eventually(lambda: shared_state(lab.router) == {"ok": True, "processes": WORKERS}, 30)
    assert eventually(lambda: in_flight(lab.router) == 0)


def is_closed(client: RawClient) -> bool:
    try:
        return client.socket.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def in_flight(router: RunningRouter) -> float:
    found = re.search(rb"^ai_router_in_flight (\S+)", router.get("/metrics")[2], re.MULTILINE)
    return float(found[1]) if found else -1


def test_a_stop_ends_them_all_and_their_valkey(tmp_path: Path) -> None:
    with fake_upstream() as primary:
        primary.on(CHAT, says("well"))
        with running_router(tmp_path, PRIMARY_URL=primary.url, WORKERS="2") as router:
            assert eventually(lambda: shared_state(router)["processes"] == 2, 30)
            all_pids = list(children(router.process.pid))
            assert len(all_pids) == 3
            assert router.stop(signal.SIGTERM) == 0
            assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in all_pids))


def test_auto_is_one_for_each_processor(tmp_path: Path) -> None:
    with fake_upstream() as primary, running_router(tmp_path, PRIMARY_URL=primary.url, WORKERS="auto") as router:
        assert eventually(lambda: len(workers(router)) == len(os.sched_getaffinity(0)), 30)


def test_a_number_that_is_none_stops_the_start(tmp_path: Path) -> None:
    command: list[Any] = [COMMAND, "serve"]
    environment = clean_environment(WORKERS="many", DATA_DIR=str(tmp_path))
    stopped = subprocess.run(command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert stopped.returncode != 0
    assert "WORKERS must be auto, or a whole number from 1 to 64, not 'many'" in stopped.stderr
