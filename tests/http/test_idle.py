"""How long a read may wait."""

from __future__ import annotations

import threading

import pytest

from ai_router.errors import Source, UpstreamTimeout
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.http.timers import IdleWatch, TimerThread
from ai_router.types import Purpose
from tests.fakes.personas import CHAT, chunk, says
from tests.fakes.upstream import FakeUpstream, Hang, Stream


def upstream_request(upstream: FakeUpstream, idle: float) -> UpstreamRequest:
    return UpstreamRequest(
        Source("primary", "m"), "POST", f"{upstream.url}{CHAT}", Timeouts(2.0, 20.0, idle), body=b'{"stream":true}'
    )


def test_a_read_that_takes_too_long_calls_back_once(timers: TimerThread) -> None:
    fired = threading.Event()
    watch = IdleWatch(timers, 0.02, fired.set)
    watch.read_begins()
    assert fired.wait(10)


def test_reads_that_come_back_and_the_time_between_them_are_not_idle(timers: TimerThread) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, fired = Clock(), list[float]()
    watch = IdleWatch(timers, 3600.0, lambda: fired.append(clock.now), clock)
    watch.read_begins()
    clock.now = 3599.0
    watch._check()
    watch.read_ends()
    clock.now = 9999.0
    watch._check()
    watch.read_begins()
    clock.now += 3600.0
    watch._check()
    assert fired == [13_599.0]
    watch.close()


def test_a_watch_that_is_closed_says_nothing(timers: TimerThread) -> None:
    fired: list[int] = []
    watch = IdleWatch(timers, 0.0, lambda: fired.append(1))
    watch.close()
    watch._read_began_at = -1.0
    watch._check()
    assert fired == []


def test_a_stream_that_falls_silent_ends_and_its_connection_is_not_reused(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "x"})], ending="hang"), says("well"))
    response = client.open(upstream_request(upstream, 0.1), UpstreamCall(1, Purpose.ANSWER))
    chunks = response.chunks()
    assert next(chunks)
    with pytest.raises(UpstreamTimeout, match=r"silent for 0\.1 s"):
        next(chunks)
    response.close()
    again = client.open(upstream_request(upstream, 5.0), UpstreamCall(2, Purpose.ANSWER))
    assert b"well" in b"".join(again.chunks())
    again.close()


def test_a_plain_read_after_a_stream_on_the_same_connection_has_its_timeout_again(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, says("well"), Hang())
    first = client.open(upstream_request(upstream, 5.0), UpstreamCall(1, Purpose.ANSWER))
    b"".join(first.chunks())
    first.close()
    call = UpstreamCall(2, Purpose.ANSWER)
    with pytest.raises(UpstreamTimeout, match="silent"):
        client.open(upstream_request(upstream, 0.1), call).read(100)
    assert call.reused
