"""Faults of the process itself and of its surroundings: what clients smuggle in, disks, signals, kills, limits.

The numbers are those of docs/faults.md.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import Connect, Lab, let_wait
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, DONE, anew, chunk, classifies, finds, says
from tests.fakes.process import assert_nothing_leaked, holdings, idle, worker_of
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Recorded, Reply, Stream, fake_upstream

FIRST = chunk({"content": "first"})
BEGUN = Stream([FIRST], ending="hang")

Start = Callable[..., AbstractContextManager[RunningRouter]]

both = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@pytest.fixture
def start(tmp_path: Path, upstream: FakeUpstream) -> Start:
    """Starts a router with nothing but a primary."""
    upstream.on(CHAT, says("hello"))

    def start(**settings: str) -> AbstractContextManager[RunningRouter]:
        return running_router(tmp_path, **{"PRIMARY_URL": upstream.url, "FAST_ROUTING": "off"} | settings)

    return start


def in_turn(*scripts: Reply | Callable[[Recorded], Reply]) -> Callable[[Recorded], Reply]:
    """A script for each request in the order of arrival, the last one for ever."""
    left = list(scripts)

    def reply(request: Recorded) -> Reply:
        script = left.pop(0) if len(left) > 1 else left[0]
        return script(request) if callable(script) else script

    return reply


def health(router: RunningRouter) -> dict[str, Any]:
    return orjson.loads(router.get("/health")[2])


def session_of(answer: bytes) -> str:
    """The session's id in a raw answer."""
    return answer.split(b"x-session-id: ")[1].split(b"\r\n")[0].decode()


# 16: what a client smuggles in

ALLOWED = {
    *("host", "user-agent", "accept", "accept-encoding", "connection", "content-length", "content-type"),
    *("authorization", "x-request-id"),
}
SMUGGLED = {"api_base": "http://evil", "base_url": "http://evil", "api_key": "evil"}
EVIL_HEADERS = {
    "Authorization": "Bearer evil",
    "X-Api-Key": "evil",
    "Cookie": "evil=1",
    "X-Forwarded-For": "6.6.6.6, evil",
    "Forwarded": "for=evil",
    "User-Agent": "evil/1.0",
    "Accept": "evil/*",
    "OpenAI-Organization": "evil",
    "Traceparent": "00-evil",
}


def all_posts(lab: Lab) -> list[Recorded]:
    fakes = (lab.classifier, lab.primary, lab.xai)
    return [request for fake in fakes for request in fake.requests if request.method == "POST"]


@both
@pytest.mark.parametrize("label", ["MODERATE", "COMPLEX", "ENRICH"])
def test_16_of_a_client_s_headers_and_addresses_nothing_reaches_any_backend(lab: Lab, label: str, stream: bool) -> None:
    lab.classifier.on(CHAT, classifies(label))
    assert lab.router.chat(stream=stream, headers=EVIL_HEADERS, **SMUGGLED)[0] == 200
    seen = all_posts(lab)
    assert len(seen) >= 2
    for request in seen:
        assert set(request.headers) <= ALLOWED
        assert not [value for value in request.headers.values() if "evil" in value]
        # In bytes: of a speculation that was given up, the body may not have come whole, or at all.
        assert not [name for name in ("evil", *SMUGGLED) if name.encode() in request.raw_body]


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Content-Length : 5",
    ],
    ids=["length and chunks", "chunks and length", "two lengths", "unknown coding", "chunks not last", "a blank"],
)
def test_16_no_request_hides_behind_another(lab: Lab, raw: Connect, headers: bytes) -> None:
    client = raw(lab.router.port)
    hidden = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(b"POST /v1/route HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n\r\n0\r\n\r\n" + hidden)
    answers = client.read_to_end()
    assert answers.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answers.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"x-request-id: a\r\n x-injected: yes",
        b"x-request-id: a\rx-injected: yes",
        b"x-request-id: a\nx-injected: yes",
        b"x-request-id: a%0d%0ax-injected: yes",
        b"x-request-id: a\x00b",
        b"x-request-id: \xe2\x98\xa0",
        b"x-request-id: a\r\nx-request-id: b\r\nx-injected: yes",
        b"x_request_id: a b\r\nx-injected: yes",
    ],
    ids=["folded", "CR", "LF", "encoded", "NUL", "not ASCII", "twice", "underscores"],
)
def test_16_a_request_id_carries_no_second_header(lab: Lab, raw: Connect, line: bytes) -> None:
    client = raw(lab.router.port)
    body = b'{"model": "primary", "messages": [{"role": "user", "content": "hi"}]}'
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n"
        % len(body)
    )
    client.send(head + line + b"\r\n\r\n" + body)
    answer = client.read_to_end().partition(b"\r\n\r\n")[0].lower()
    assert re.match(rb"http/1.1 (200|400) ", answer)
    assert b"x-injected" not in answer
    for request in all_posts(lab):
        assert set(request.headers) <= ALLOWED
        assert re.fullmatch(r"[A-Za-z0-9._-]+", request.headers["x-request-id"])


def test_16_a_backend_s_complaint_begins_no_header(lab: Lab) -> None:
    lab.primary.on(CHAT, Plain({"error": {"message": "boom\r\nx-injected: yes\r\n\r\n<html>"}}, status=400))
    for model, status in (("primary", 400), ("auto", 400)):
        answered, headers, _ = lab.router.chat(model=model)
        assert (answered, "x-injected" in headers) == (status, False)
    lab.primary.on(CHAT, Plain({"error": {"message": "boom\r\nx-injected: yes\r\n\r\n<html>"}}, status=500))
    answered, headers, _ = lab.router.chat()
    assert (answered, headers["x-router-route"], "x-injected" in headers) == (200, "xai", False)
    assert "boom" in headers["x-router-reason"]


def test_16_a_backend_s_complaint_begins_no_event(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    lab.xai.on("/v1/responses", finds("news", delay=1.0))
    forged = chunk({"content": "forged"}).decode()
    lab.primary.on(CHAT, Plain({"error": {"message": f"boom\n\n{forged}\r\r{forged}"}}, status=500))
    body = lab.router.chat(anew(), stream=True)[2]
    lines = re.split(rb"\r\n|\r|\n", body)
    assert [line for line in lines if line.startswith(b": ") and b"boom" in line]
    assert not [line for line in lines if not line.startswith(b":") and b"forged" in line]


def test_16_a_model_s_name_begins_no_header(lab: Lab) -> None:
    for model in ("nope\r\nx-injected: yes", "xai/nope\nx-injected: yes", "primary\r\nx-injected: yes"):
        status, headers, _ = lab.router.chat(model=model)
        # Any name after "xai/" is xAI's to judge.
        assert (status, "x-injected" in headers) == (200 if "/" in model else 404, False)


# 17: session files


def saved(router: RunningRouter) -> list[dict[str, Any]]:
    """All sessions; fails if one of them is not whole."""
    return [orjson.loads(path.read_bytes()) for path in (router.data / "sessions").glob("*.json")]


def orphans(router: RunningRouter) -> list[Path]:
    return list((router.data / "sessions").glob("*.tmp"))


def test_17_a_session_directory_that_is_removed_is_made_again(start: Start) -> None:
    with start() as router:
        router.session(router.chat()[1]["x-session-id"])
        shutil.rmtree(router.data / "sessions")
        router.session(router.chat()[1]["x-session-id"])
        assert health(router)["sessions"] == {"lost": 0, "last_error": None}


def test_17_a_session_directory_that_cannot_be_costs_sessions_and_no_answers(start: Start) -> None:
    with start() as router:
        sessions, aside = router.data / "sessions", router.data / "aside"
        router.session(router.chat()[1]["x-session-id"])
        assert health(router)["status"] == "healthy"
        sessions.rename(aside)
        sessions.touch()
        assert [router.chat(stream=stream)[0] for stream in (False, True, False)] == [200] * 3
        assert eventually(lambda: health(router)["sessions"]["lost"] == 3)
        report = health(router)
        assert (report["status"], bool(report["sessions"]["last_error"])) == ("degraded", True)
        router.wait_for_log(r"Session not saved: .*")
        sessions.unlink()
        aside.rename(sessions)
        router.session(router.chat()[1]["x-session-id"])
        assert eventually(lambda: health(router)["status"] == "healthy")
        assert health(router)["sessions"] == {"lost": 3, "last_error": None}


@contextmanager
def limited(pid: int, what: int, most: int) -> Iterator[None]:
    """The soft limit of a running process, lowered for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def test_17_a_disk_that_fills_up_leaves_no_half_file_and_sessions_come_back_with_the_room(start: Start) -> None:
    text = "long " * 20_000
    with start() as router:
        router.session(router.chat(text)[1]["x-session-id"])
        # No file may grow beyond this: a session is cut in the middle, and the log cannot be written either.
        with limited(worker_of(router), resource.RLIMIT_FSIZE, 4096):
            assert [router.chat(text, stream=stream)[0] for stream in (False, True) * 20] == [200] * 40
            assert eventually(lambda: health(router)["sessions"]["lost"] == 40)
            assert health(router)["status"] == "degraded"
            assert (len(saved(router)), orphans(router)) == (1, [])
        after = router.chat(text)[1]["x-session-id"]
        assert router.session(after)["client_messages"][-1]["content"] == text
        assert eventually(lambda: health(router)["status"] == "healthy")
        router.wait_for_log(rf"REQUEST session={after} .*")


def test_17_what_a_killed_process_left_half_written_is_swept_with_the_first_session_saved(
    start: Start, tmp_path: Path
) -> None:
    sessions = tmp_path / "data" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / ".20260101T000000.000000Z-aaaaaaaaaaaa.json.tmp").write_bytes(b'{"session_id": "aaaa')
    (sessions / "20260101T000000.000000Z-bbbbbbbbbbbb.json").write_bytes(b"{}")
    with start() as router:
        router.session(router.chat()[1]["x-session-id"])
        assert orphans(router) == []
        assert len(saved(router)) == 2


def test_17_a_kill_in_the_middle_of_saving_leaves_only_whole_sessions(start: Start) -> None:
    text = "x" * 4_000_000
    stop = threading.Event()

    def ask(router: RunningRouter) -> None:
        while not stop.is_set():
            try:
                router.chat(text)
            except Exception:  # noqa: BLE001 - killed under our feet, in whatever way it shows
                continue

    with start() as router, ThreadPoolExecutor(4) as clients:
        try:
            asking = [clients.submit(ask, router) for _ in range(4)]
            for _ in range(3):
                before = len(saved(router))
                # The first one that a worker saves sweeps what the killed one left: what is there then is its own.
                assert eventually(lambda before=before: len(saved(router)) > before)
                assert eventually(lambda: orphans(router))
                kill_worker(router)
        finally:
            stop.set()
        for one in asking:
            one.result()
        assert all(session["client_messages"][-1]["content"] == text for session in saved(router))
        router.session(router.chat()[1]["x-session-id"])
        assert eventually(lambda: not orphans(router)), "what the killed ones left was not swept"


# 18: the database of usage


def test_18_a_broken_database_is_set_aside_once_and_one_that_is_deleted_made_again(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "usage.db").write_bytes(b"torn by a disk" * 4000)

    def usage(router: RunningRouter) -> int:
        return int(orjson.loads(router.get("/api/usage")[2])["total"]["requests"])

    with start() as router:
        for _ in range(3):
            assert router.chat()[0] == 200
        assert usage(router) == 3
        assert health(router)["usage"] == {"ok": True, "waiting": 0, "lost": 0, "reopened": 1}
        assert len(list(router.data.glob("usage.db.broken-*"))) == 1
        for path in router.data.glob("usage.db*"):
            path.unlink()
        assert router.chat()[0] == 200
        assert usage(router) == 1
        report = health(router)
        assert (report["status"], report["usage"]["reopened"]) == ("healthy", 2)
        router.wait_for_log(r"Usage: the database is begun anew: its file was deleted.*")
        told = [line for line in router.log() if "Usage" in line or "Traceback" in line]
        assert len(told) == 2


# 19: signals and kills


def kill_worker(router: RunningRouter) -> int:
    """kill -9, and wait until it is dead; which one it was."""
    pid = worker_of(router)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not alive(pid))
    return pid


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def queued(router: RunningRouter) -> bool:
    return b'ai_router_queue_depth{backend="primary"} 1.0' in router.get("/metrics")[2]


@both
def test_19_sigterm_lets_one_who_waits_in_the_queue_have_its_answer(
    start: Start, upstream: FakeUpstream, raw: Connect, stream: bool
) -> None:
    go = threading.Event()

    def held(request: Recorded) -> Reply:
        assert go.wait(20)
        return says("first")(request)

    upstream.on(CHAT, in_turn(held, says("second")))
    with start(BACKEND_CAP="1") as router:
        first, second = raw(router.port), raw(router.port)
        first.send_chat(stream=stream)
        upstream.wait_for(CHAT)
        second.send_chat(stream=stream)
        assert eventually(lambda: queued(router))
        router.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not listens(router))
        go.set()
        answers = [client.read_to_end() for client in (first, second)]
        assert router.process.wait(20) == 0
        for answer, word in zip(answers, (b"first", b"second"), strict=True):
            assert answer.startswith(b"HTTP/1.1 200")
            assert word in answer
            assert not stream or answer.endswith(DONE + b"\r\n0\r\n\r\n")
            assert router.session(session_of(answer))["status"] == "ok"


def listens(router: RunningRouter) -> bool:
    """Whether anybody listens at its port; told by the system, so that no connection is made to find out."""
    sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(line[1].endswith(f":{router.port:04X}") and line[3] == "0A" for line in sockets)


@both
def test_19_sigterm_does_not_wait_for_ever_for_the_queue(
    start: Start, upstream: FakeUpstream, raw: Connect, stream: bool
) -> None:
    upstream.on(CHAT, Hang())
    with start(BACKEND_CAP="1", QUEUE_BUDGET_S="1", REQUEST_TIMEOUT_S="2", KEEPALIVE_S="0.2") as router:
        first, second = raw(router.port), raw(router.port)
        first.send_chat()
        upstream.wait_for(CHAT)
        second.send_chat(stream=stream)
        assert eventually(lambda: queued(router))
        router.process.send_signal(signal.SIGTERM)
        for answer in (first.read_to_end(), second.read_to_end()):
            assert b'"error":{' in answer
            assert b"[DONE]" not in answer
            assert router.session(session_of(answer))["status"] == "error"
        assert router.process.wait(20) == 0


def test_19_a_stream_that_outlives_the_patience_of_sigterm_ends_with_an_error_in_it(
    start: Start, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, Stream([FIRST] * 1000, gap=0.05))
    with start(REQUEST_TIMEOUT_S="2") as router:
        client = raw(router.port)
        client.send_chat(stream=True)
        client.read_until(b"first")
        router.process.send_signal(signal.SIGTERM)
        answer = client.read_to_end()
        last_event = answer.removesuffix(b"\r\n0\r\n\r\n").strip().rsplit(b"data: ", 1)[1]
        assert orjson.loads(last_event)["error"]["code"] == "upstream_timeout"
        assert b"[DONE]" not in answer
        assert router.process.wait(20) == 0
        session = router.session(session_of(answer))
        assert (session["status"], session["response"]["content"][:5]) == ("error", "first")
        assert upstream.wait_for(CHAT).gone.wait(5)


def test_19_sigint_after_sigterm_waits_for_nobody_any_more(start: Start, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, BEGUN)
    with start() as router:
        client = raw(router.port)
        client.send_chat(stream=True)
        client.read_until(b"first")
        router.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not listens(router))
        router.process.send_signal(signal.SIGINT)
        answer = client.read_to_end()
        assert b'"code":"shutting_down"' in answer
        assert router.process.wait(20) == 0
        assert router.session(session_of(answer))["status"] == "error"


def test_19_kept_alive_connections_do_not_hold_up_a_stop(start: Start, raw: Connect) -> None:
    with start() as router:
        for _ in range(5):
            client = raw(router.port)
            client.send_chat()
            client.read_until(b"}]")
        router.process.send_signal(signal.SIGTERM)
        # The patience for streams is ten minutes here.
        assert router.process.wait(20) == 0


def test_19_a_killed_worker_is_replaced_and_its_clients_see_no_clean_ending(
    start: Start, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, in_turn(BEGUN, Hang(), says("from the new one")))
    with start() as router:
        streaming, waiting = raw(router.port), raw(router.port)
        streaming.send_chat(stream=True)
        streaming.read_until(b"first")
        waiting.send_chat()
        upstream.wait_for(CHAT, 2)
        dead = kill_worker(router)
        assert not broken_off(streaming).endswith(b"0\r\n\r\n")
        assert broken_off(waiting) == b""
        for number in (1, 2):
            assert upstream.wait_for(CHAT, number).gone.wait(5)
        # The master still listens: a request that comes now waits for the new worker, it is not refused.
        status, _, body = router.chat()
        assert (status, b"from the new one" in body) == (200, True)
        assert worker_of(router) != dead
        assert router.get("/health/ready")[0] == 200
        assert_nothing_leaked(router, holdings(worker_of(router)))


def broken_off(client: RawClient) -> bytes:
    """What came until the connection ended, in whatever way."""
    try:
        return client.read_to_end()
    except ConnectionResetError:
        return client.received


def test_19_a_killed_worker_loses_no_session_that_was_saved_and_no_line_that_was_logged(start: Start) -> None:
    with start() as router:
        before = [router.chat()[1]["x-session-id"] for _ in range(3)]
        for session in before:
            router.session(session)
            router.wait_for_log(rf"Session saved: {session} .*")
        kill_worker(router)
        after = router.chat()[1]["x-session-id"]
        for session in (*before, after):
            assert router.session(session)["status"] == "ok"
            router.wait_for_log(rf"REQUEST session={session} .*")


def test_19_workers_killed_in_a_row_do_not_end_the_router(start: Start) -> None:
    with start() as router:
        for _ in range(3):
            kill_worker(router)
            assert router.chat()[0] == 200
        assert router.process.poll() is None


def test_19_a_killed_master_leaves_no_worker_that_takes_requests(start: Start) -> None:
    with start() as router:
        worker = worker_of(router)
        try:
            router.process.kill()
            router.process.wait(20)
            assert eventually(lambda: not listens(router)), "somebody still listens"
            assert eventually(lambda: not alive(worker))
        finally:
            if alive(worker):
                os.kill(worker, signal.SIGKILL)


# 20: places and file descriptors


def test_20_a_crowd_beyond_the_places_is_told_to_come_back_and_what_watches_the_router_is_answered(
    start: Start, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, Hang())
    with start(THREADS="8") as router:
        inside = [raw(router.port) for _ in range(6)]
        for client in inside:
            client.send_chat(stream=True)
        upstream.wait_for(CHAT, 6)
        inside += let_wait(router, raw, 6)
        with ThreadPoolExecutor(30) as crowd:
            answers = list(crowd.map(lambda number: router.chat(stream=number % 2 == 0), range(60)))
        for status, headers, body in answers:
            assert (status, headers["retry-after"]) == (503, "1")
            assert orjson.loads(body)["error"]["code"] == "server_is_overloaded"
        for path in ("/health", "/health/live", "/health/ready", "/metrics", "/v1/models"):
            assert router.get(path)[0] == 200, path
        assert health(router)["in_flight"] == 6
        shed = re.search(rb"^ai_router_\w*shed\w*_total (\d+)", router.get("/metrics")[2], re.MULTILINE)
        assert shed is not None
        assert int(shed[1]) == 60
        assert len(upstream.calls(CHAT)) == 6
        for client in inside:
            client.leave()
        upstream.on(CHAT, says("fine"))
        assert eventually(lambda: idle(router))
        assert router.chat()[0] == 200


def test_20_a_request_under_way_can_be_cancelled_while_all_places_are_taken(
    start: Start, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, Hang())
    with start(THREADS="4") as router:
        for name in ("one", "two"):
            raw(router.port).send_chat(headers=f"x-request-id: {name}\r\n")
        upstream.wait_for(CHAT, 2)
        let_wait(router, raw, 2)
        assert router.chat()[0] == 503
        upstream.on(CHAT, says("in its place"))
        connection = router.connection()
        connection.request("POST", "/v1/requests/one/cancel")
        assert connection.getresponse().status == 200
        connection.close()
        assert eventually(lambda: router.chat()[0] == 200)


def limited_command(folder: Path, *, soft: int, hard: int) -> Path:
    """The router's command, to be run with these limits for file descriptors."""
    command = folder / "limited-ai-router"
    command.write_text(f'#!/bin/sh\nulimit -Sn {soft} && ulimit -Hn {hard} && exec "{COMMAND}" "$@"\n')
    command.chmod(0o755)
    return command


def serve_within(folder: Path, most: int, **settings: str) -> subprocess.CompletedProcess[str]:
    """What a start that is expected to fail says."""
    environment = clean_environment(PRIMARY_URL="http://127.0.0.1:9", PORT="1", **settings)
    command = [limited_command(folder, soft=most, hard=most), "serve"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def descriptors_for(threads: int, folder: Path) -> int:
    """How many file descriptors the router wants for so many threads, in its own words."""
    said = re.search(r"may need (\d+) file descriptors", serve_within(folder, 64, THREADS=str(threads)).stderr)
    assert said
    return int(said[1])


@pytest.mark.parametrize("threads", ["1024", "72"])
def test_20_threads_beyond_the_file_descriptors_stop_the_start_with_one_line(tmp_path: Path, threads: str) -> None:
    ended = serve_within(tmp_path, 200, THREADS=threads)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert re.match(
        rf"ai-router: THREADS {threads} and MAX_STREAMS 1000 may need \d+ file descriptors .* allows 200: ",
        ended.stderr,
    )


def test_20_a_soft_limit_is_raised_by_the_router_itself(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = descriptors_for(72, tmp_path)
    monkeypatch.setattr("tests.fakes.router.COMMAND", limited_command(tmp_path, soft=64, hard=wanted + 100))
    with start() as router:
        assert resource.prlimit(worker_of(router), resource.RLIMIT_NOFILE) == (wanted, wanted + 100)
        assert router.chat()[0] == 200


def test_20_as_many_clients_as_are_let_in_fit_into_the_file_descriptors(
    start: Start, upstream: FakeUpstream, raw: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = descriptors_for(8, tmp_path)
    monkeypatch.setattr("tests.fakes.router.COMMAND", limited_command(tmp_path, soft=64, hard=wanted))
    upstream.on(CHAT, Hang())
    with fake_upstream() as classifier:
        classifier.on(CHAT, Hang())
        with start(THREADS="8", ROUTER_URL=classifier.url, CLASSIFIER_MODE="reasoning") as router:
            inside = [raw(router.port) for _ in range(6)]
            for client in inside:
                client.send_chat(stream=True)
            upstream.wait_for(CHAT, 6)
            inside += let_wait(router, raw, 6)
            for _ in range(60):
                raw(router.port).send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert [router.chat()[0] for _ in range(3)] == [503] * 3
            assert health(router)["in_flight"] == 6
            assert holdings(worker_of(router)).descriptors < wanted
            for client in inside:
                client.leave()
            assert eventually(lambda: health(router)["in_flight"] == 0)
        assert "Too many open files" not in (tmp_path / "stderr.txt").read_text()


# 21: a classifier that never comes to the point (one that is silent, and one whose event never ends: test_reasoning.py)


@pytest.mark.parametrize(
    ("mode", "script"),
    [
        ("reasoning", Stream([chunk({"reasoning": "hm "})] * 2000, gap=0.02)),
        ("reasoning", Stream([b": thinking\n\n"] * 2000, gap=0.02)),
        ("constrained", Hang()),
        ("constrained", Plain({}, delay=30)),
    ],
    ids=["babbles", "comments", "hangs", "is slow"],
)
def test_21_a_classifier_that_does_not_come_to_the_point_is_left_at_its_deadline(
    start: Start, upstream: FakeUpstream, mode: str, script: Reply
) -> None:
    with fake_upstream() as classifier:
        classifier.on(CHAT, script)
        with start(ROUTER_URL=classifier.url, CLASSIFIER_MODE=mode, CLASSIFIER_TIMEOUT_S="0.5") as router:
            status, headers, _ = router.chat()
            assert (status, headers["x-router-route"], headers["x-router-decided-by"]) == (200, "primary", "default")
            assert "within 0.5 s" in headers["x-router-reason"]
            assert all(call.gone.wait(5) for call in classifier.calls(CHAT))
            assert len(upstream.calls(CHAT)) == 1
