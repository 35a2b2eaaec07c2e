"""Waiting for a backend that is busy: bounded, fair, told of, and left at any time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.conftest import Connect
from tests.fakes.personas import CHAT, chunk, says
from tests.fakes.process import assert_nothing_leaked, holdings, idle, worker_of
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Stream

NOTICE = re.compile(rb": waiting for primary: position (\d+), about (\d+) s\n\n")
KEYS = {"AI_ROUTER_API_KEYS": "key-of-x,key-of-y"}


def limited(**headers: str) -> Plain:
    dashed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Plain({"error": {"message": "slow down"}}, status=429, headers=dashed)


@pytest.fixture
def start(tmp_path: Path, upstream: FakeUpstream) -> Iterator[object]:
    upstream.on(CHAT, says("hello"))

    def start(**settings: str):  # type: ignore[no-untyped-def]
        brief = {"PRIMARY_URL": upstream.url, "FAST_ROUTING": "off", "KEEPALIVE_S": "0.2", "BACKOFF_S": "0.05"}
        return running_router(tmp_path, **brief | settings)

    return start


def queued(router: RunningRouter, count: int) -> None:
    """Wait until so many stand in the queue."""
    depth = b'ai_router_queue_depth{backend="primary"} %d.0' % count
    assert eventually(lambda: depth in router.get("/metrics", {"x-api-key": "key-of-x"})[2])


def test_a_stream_is_told_its_position_and_the_wait_and_then_gets_its_answer(start, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, limited(retry_after="2"), says("at ", "last"))
    with start() as router:
        status, headers, body = router.chat(stream=True)
        assert (status, headers["x-router-route"]) == (200, "primary")
        notices = NOTICE.findall(body)
        assert len(notices) >= 3, body
        assert body.count(b": keep-alive") <= 1, "the notices are enough"
        assert notices[0] == (b"1", b"2") or notices[0] == (b"1", b"1")
        assert b"at " in body
        assert body.endswith(b"data: [DONE]\n\n")
        session = router.session(headers["x-session-id"])
        assert [step["kind"] for step in session["steps"]].count("queue") == 1
        assert 1_000 < session["timings"]["queue_ms"] < 3_000
        router.wait_for_log(r"Queued: primary position=1 expected_ms=\d+")


def test_a_plain_client_gets_its_answer_later(start, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, limited(retry_after="1"), says("at last"))
    with start() as router:
        status, headers, body = router.chat()
        assert (status, orjson.loads(body)["choices"][0]["message"]["content"]) == (200, "at last")
        assert "queue;dur=" in headers["server-timing"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_beyond_the_budget_it_is_429_with_the_time_to_come_back(start, upstream: FakeUpstream, stream: bool) -> None:
    upstream.on(CHAT, limited(retry_after="30"))
    with start(QUEUE_BUDGET_S="2") as router:
        for _ in range(2):
            status, headers, body = router.chat(stream=stream)
            assert (status, orjson.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
            assert 28 <= int(headers["retry-after"]) <= 30
        assert len(upstream.calls(CHAT)) == 1, "the second did not even ask"


def test_those_who_come_during_a_cooldown_wait_too_and_one_goes_first(start, upstream: FakeUpstream) -> None:
    arrived: list[float] = []

    def noted(request):  # type: ignore[no-untyped-def]
        arrived.append(time.monotonic())
        return says("hello", ttft=0.1)(request)

    upstream.on(CHAT, limited(retry_after="1"), noted)
    with start() as router, ThreadPoolExecutor(6) as clients:
        first = clients.submit(router.chat)
        router.wait_for_log(r"Queued: primary .*")
        answers = list(clients.map(lambda _: router.chat()[0], range(5)))
        assert [first.result()[0], *answers] == [200] * 6
        assert len(upstream.calls(CHAT)) == 7
        assert arrived[1] - arrived[0] >= 0.1, "the probe is alone until it succeeds"


def test_a_backend_at_its_cap_is_waited_for_in_order(start, upstream: FakeUpstream) -> None:
    served: list[str] = []
    go = threading.Semaphore(0)

    def one_by_one(request):  # type: ignore[no-untyped-def]
        served.append(request.body["messages"][-1]["content"])
        assert go.acquire(timeout=20)
        return says("ok")(request)

    upstream.on(CHAT, one_by_one)
    with start(BACKEND_CAP="1", DATE_CONTEXT="off", **KEYS) as router, ThreadPoolExecutor(8) as clients:

        def ask(name: str) -> int:
            return router.chat(name, headers={"x-api-key": f"key-of-{name[0]}"})[0]

        answers = []
        for count, name in enumerate(["x1", "x2", "x3", "y1"]):
            answers.append(clients.submit(ask, name))
            if count:
                queued(router, count)
            else:
                upstream.wait_for(CHAT)
        for _ in range(4):
            go.release()
        assert [answer.result() for answer in answers] == [200] * 4
    assert served == ["x1", "x2", "y1", "x3"], "clients take turns"


def test_a_full_queue_sheds_with_503_and_a_time_and_health_answers(start, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, Hang())
    with start(BACKEND_CAP="2", QUEUE_SIZE="1") as router:
        for _ in range(3):
            raw(router.port).send_chat(stream=True)
        upstream.wait_for(CHAT, 2)
        queued(router, 1)
        status, headers, body = router.chat()
        assert (status, orjson.loads(body)["error"]["code"]) == (503, "upstream_unavailable")
        assert int(headers["retry-after"]) >= 1
        assert router.get("/health")[0] == 200
        assert b'ai_router_queue_full_total{backend="primary"} 1.0' in router.get("/metrics")[2]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_whoever_leaves_the_queue_leaves_it_at_once(start, upstream: FakeUpstream, raw: Connect, stream: bool) -> None:
    upstream.on(CHAT, Hang())
    with start(BACKEND_CAP="1") as router:
        raw(router.port).send_chat(stream=True)
        upstream.wait_for(CHAT)
        waiting = raw(router.port)
        waiting.send_chat(stream=stream)
        queued(router, 1)
        waiting.leave()
        queued(router, 0)
        assert len(upstream.calls(CHAT)) == 1


def test_all_are_waited_for_when_all_are_cooling_down(start, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, limited(retry_after="20"), says("never"))
    other = FakeUpstream()
    try:
        other.on(CHAT, limited(retry_after="1"), says("from ", "xai"))
        settings = {"XAI_API_URL": other.url, "XAI_API_KEY": "k", "QUEUE_BUDGET_S": "3"}
        with start(**settings) as router:
            status, headers, _ = router.chat()
            assert (status, headers["x-router-route"]) == (200, "xai")
            assert len(other.calls(CHAT)) == 2, "the soonest was waited for"
    finally:
        other.close()


def test_a_quiet_stream_is_kept_alive(start, upstream: FakeUpstream) -> None:
    portions = [chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"), b"data: [DONE]\n\n"]
    upstream.on(CHAT, Stream(portions, gap=0.7))
    with start() as router:
        before = holdings(worker_of(router))
        body = router.chat(stream=True)[2]
        assert body.count(b": keep-alive\n\n") >= 4
        without = body.replace(b": keep-alive\n\n", b"")
        assert without == b"".join(portions)
        assert body.endswith(b"[DONE]\n\n")
        assert_nothing_leaked(router, before)


def test_an_old_client_s_stream_is_kept_alive_without_chunks(start, upstream: FakeUpstream, raw: Connect) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "a"}), chunk({}, "stop"), b"data: [DONE]\n\n"], gap=0.7))
    with start() as router:
        client = raw(router.port)
        body = b'{"stream": true, "messages": [{"role": "user", "content": "hi"}]}'
        client.send(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = client.read_to_end().partition(b"\r\n\r\n")[2]
        assert answer.startswith(chunk({"content": "a"}) + b": keep-alive\n\n")
        assert answer.endswith(b"data: [DONE]\n\n")
        assert eventually(lambda: idle(router))
