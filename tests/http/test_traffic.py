"""What calls take of a backend's time and of the network."""

from __future__ import annotations

from ai_router.errors import AnswerSufficient, ClientGone, Source
from ai_router.http.calls import CancelScope, Occupancy, Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.trace_context import Trace
from ai_router.types import Purpose
from tests.fakes.personas import CHAT, says
from tests.fakes.upstream import FakeUpstream

SOURCE = Source("primary", "m")
BODY = b'{"messages": []}'


def upstream_request(upstream: FakeUpstream) -> UpstreamRequest:
    return UpstreamRequest(SOURCE, "POST", f"{upstream.url}{CHAT}", Timeouts(2.0, 20.0, 20.0), body=BODY)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_single_call_counts_all_the_time_it_took() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    share = occupancy.call_started()
    clock.now = 3.0
    assert occupancy.call_ended(share) == 3.0


def test_calls_that_overlap_share_the_time_and_none_counts_twice() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    first = occupancy.call_started()
    clock.now = 1.0
    second = occupancy.call_started()
    clock.now = 5.0
    assert occupancy.call_ended(first) == 1.0 + 2.0
    clock.now = 6.0
    assert occupancy.call_ended(second) == 2.0 + 1.0


def test_time_without_calls_counts_for_no_call() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    occupancy.call_ended(occupancy.call_started())
    clock.now = 100.0
    share = occupancy.call_started()
    clock.now = 101.0
    assert occupancy.used_s(share) == occupancy.call_ended(share) == 1.0


def test_a_call_counts_its_bytes_and_its_time(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("hello"))
    scope = CancelScope()
    call = scope.new_call(Purpose.SEARCH)
    response = client.open(upstream_request(upstream), call)
    body = response.read(1 << 20)
    response.close()
    (traffic,) = scope.traffic()
    assert (traffic.call_number, traffic.purpose, traffic.backend) == (1, Purpose.SEARCH, "primary")
    assert (traffic.bytes_sent, traffic.bytes_received) == (len(BODY), len(body))
    assert traffic.used_s > 0
    assert not traffic.abandoned


def test_a_call_that_never_began_has_no_traffic() -> None:
    scope = CancelScope()
    scope.new_call()
    assert scope.traffic() == ()


def test_a_health_check_has_no_traffic(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("well"))
    call = UpstreamCall()
    client.open(upstream_request(upstream), call).close()
    assert call.traffic() is None


def test_a_call_that_was_aborted_is_abandoned() -> None:
    for reason, abandoned in ((ClientGone(), True), (AnswerSufficient("enough"), False)):
        call = UpstreamCall(1, Purpose.ANSWER)
        call.begin(SOURCE, Occupancy())
        call.abort(reason)
        call.end()
        traffic = call.traffic()
        assert traffic is not None
        assert traffic.abandoned is abandoned


def test_a_call_aborted_after_its_end_is_not_abandoned() -> None:
    call = UpstreamCall(1, Purpose.ANSWER)
    call.begin(SOURCE, Occupancy())
    call.end()
    call.abort(ClientGone())
    assert call.traffic().abandoned is False  # type: ignore[union-attr]


def test_every_call_of_a_trace_carries_its_own_traceparent(client: UpstreamClient, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("hello"))
    trace = Trace(trace_id=0xABC, parent_id=None, span_id=7, flags=1)
    scope = CancelScope(trace)
    for _ in range(2):
        client.open(upstream_request(upstream), scope.new_call()).close()
    sent = [request.headers["traceparent"] for request in upstream.calls(CHAT)]
    assert sent == [trace.header(1), trace.header(2)]
