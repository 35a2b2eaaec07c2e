"""Stopping a router: quickly or after its streams, and never not at all."""

from __future__ import annotations

import http.client
import signal
import threading
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Connect
from tests.fakes.personas import CHAT, DONE, chunk, says
from tests.fakes.router import running_router
from tests.fakes.upstream import FakeUpstream, Hang, Stream


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


def test_sigint_cuts_streams_and_saves_what_is_queued(tmp_path: Path, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, says("saved"), Hang())
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        session = router.chat()[1]["x-session-id"]
        raw(router.port).send_chat(stream=True)
        upstream.wait_for(CHAT, 2)
        assert router.stop(signal.SIGINT) == 0
        assert router.session(session)["response"]["content"] == "saved"
        assert upstream.wait_for(CHAT, 2).gone.wait(5)


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
