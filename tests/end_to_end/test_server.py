"""The server itself: clients that would make others wait, and stopping."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Connect
from tests.fakes.personas import CHAT, DONE, chunk, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Stream


@pytest.mark.parametrize("attempt", range(10))
def test_a_stop_in_the_middle_of_arrivals_does_not_hang(tmp_path: Path, upstream: FakeUpstream, attempt: int) -> None:
    upstream.on(CHAT, says("x"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        stop = threading.Event()

        def arrive() -> None:
            while not stop.is_set():
                try:
                    router.get("/health/live")
                except (OSError, http.client.HTTPException):
                    return

        arrivals = [threading.Thread(target=arrive) for _ in range(4)]
        for thread in arrivals:
            thread.start()
        assert router.chat()[0] == 200
        router.process.send_signal(signal.SIGINT)
        try:
            assert router.process.wait(timeout=15) == 0
        finally:
            stop.set()
            for thread in arrivals:
                thread.join()


def test_sigint_tells_streams_and_saves_every_session(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, says("saved"), Stream([chunk({"content": "begun"})], ending="hang"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        session = router.chat()[1]["x-session-id"]
        client = raw(router.port)
        client.send_chat(stream=True)
        head = client.read_until(b"begun")
        router.process.send_signal(signal.SIGINT)
        assert b'"code":"shutting_down"' in client.read_to_end()
        assert router.process.wait(20) == 0
        assert router.session(session)["response"]["content"] == "saved"
        cut = router.session(head.split(b"x-session-id: ")[1].split(b"\r\n")[0].decode())
        assert (cut["status"], cut["response"]["content"]) == ("error", "begun")
        assert upstream.wait_for(CHAT, 2).gone.wait(5)


def test_while_draining_the_router_is_not_ready(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "a"}), chunk({}, "stop"), DONE], gap=1.0))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        probe = router.connection()
        probe.request("GET", "/health/ready")
        assert probe.getresponse().read() == b'{"status":"ready"}\n'
        client = raw(router.port)
        client.send_chat(stream=True)
        client.read_until(b'"a"')
        router.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: refuses(router.port), 5)
        # A stopping worker keeps idle connections for a moment, and answers what comes on them.
        assert ready_status(probe) == 503
        probe.close()
        assert client.read_to_end().endswith(b"0\r\n\r\n")


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def ready_status(connection: http.client.HTTPConnection) -> int | None:
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return None
    else:
        return response.status


def time_of(router: RunningRouter, path: str) -> float:
    started = time.monotonic()
    assert router.get(path)[0] == 200
    return time.monotonic() - started


def test_connections_that_close_slowly_hold_up_nobody(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, says("x"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        for _ in range(5):
            client = raw(router.port)
            client.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            client.read_until(b"live")
        # gunicorn would linger 2 s for each of them, on its main loop.
        assert time_of(router, "/health/live") < 1.0


@pytest.mark.parametrize("sent", [b"", b"GET /health HT"], ids=["silent", "half a line"])
def test_connections_that_say_nothing_whole_do_not_take_all_threads(
    tmp_path: Path, upstream: FakeUpstream, raw: Connect, sent: bytes
) -> None:
    with running_router(tmp_path, PRIMARY_URL=upstream.url, THREADS="4", BODY_TIMEOUT_S="0.5") as router:
        for _ in range(12):
            raw(router.port).send(sent)
        # Silent ones take no thread at all; half-spoken ones are closed at their deadline, in three rounds of four.
        assert time_of(router, "/health/live") < (0.4 if not sent else 5.0)


def test_a_client_that_does_not_read_leaves_no_traceback(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "x" * 60_000})] * 2000))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, WRITE_TIMEOUT_S="0.3") as router:
        raw(router.port).send_chat(stream=True)
        assert upstream.wait_for(CHAT).gone.wait(5)
        router.wait_for_log(r"Request cancelled: .*")
        assert "Traceback" not in (tmp_path / "stderr.txt").read_text()


def test_sigterm_lets_a_stream_finish(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"), DONE], gap=0.3))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        client = raw(router.port)
        client.send_chat(stream=True)
        head = client.read_until(b'"a"')
        router.process.send_signal(signal.SIGTERM)
        assert client.read_to_end().endswith(DONE + b"\r\n0\r\n\r\n")
        assert router.process.wait(20) == 0
        session_id = head.split(b"x-session-id: ")[1].split(b"\r\n")[0].decode()
        assert router.session(session_id)["status"] == "ok"


def test_a_connection_that_never_says_a_word_does_not_delay_a_stop(
    tmp_path: Path, upstream: FakeUpstream, raw: Connect
) -> None:
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        raw(router.port)
        router.chat()
        # RunningRouter.stop gives it 20 s; the connection would be kept for 75.
        assert router.stop(signal.SIGTERM) == 0


def test_a_crowd_that_says_nothing_does_not_shut_the_others_out(
    tmp_path: Path, upstream: FakeUpstream, raw: Connect
) -> None:
    with running_router(tmp_path, PRIMARY_URL=upstream.url, THREADS="4", BODY_TIMEOUT_S="1") as router:
        crowd = [raw(router.port) for _ in range(60)]
        assert router.get("/health/live")[0] == 200
        assert len(crowd) == 60
