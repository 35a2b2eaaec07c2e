"""A client that leaves, at every stage, streamed or not: every backend sees it within 300 ms, by its own clock.

300 ms is the contract's bound, not a measurement: both moments are read in this process, from the client's close to
the fake backend's poll.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.conftest import Connect, Lab
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, classifies, says
from tests.fakes.process import worker_of
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Recorded, Stream

BOUND_S = 0.3

both = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
ways_to_leave = pytest.mark.parametrize("leave", [RawClient.leave, RawClient.reset], ids=["fin", "rst"])


def assert_seen_in_time(request: Recorded, left_at: float) -> None:
    assert request.gone.wait(5), "the backend never saw the router leave"
    assert request.disconnected_at is not None
    assert request.disconnected_at - left_at < BOUND_S


@both
@ways_to_leave
def test_while_deciding(lab: Lab, stream: bool, leave: Callable[[RawClient], None], raw: Connect) -> None:
    lab.classifier.on(CHAT, Hang())
    lab.primary.on(CHAT, Hang())
    client = raw(lab.router.port)
    client.send_chat(stream=stream)
    legs = [lab.classifier.wait_for(CHAT), lab.primary.wait_for(CHAT)]
    left_at = time.monotonic()
    leave(client)
    for leg in legs:
        assert_seen_in_time(leg, left_at)


@both
@ways_to_leave
@pytest.mark.parametrize("model", ["primary", "xai"])
def test_before_the_first_byte(
    lab: Lab, stream: bool, model: str, leave: Callable[[RawClient], None], raw: Connect
) -> None:
    backend: FakeUpstream = getattr(lab, model)
    backend.on(CHAT, Hang())
    client = raw(lab.router.port)
    client.send_chat(stream=stream, model=model)
    leg = backend.wait_for(CHAT)
    left_at = time.monotonic()
    leave(client)
    assert_seen_in_time(leg, left_at)


@ways_to_leave
def test_in_the_middle_of_a_stream(lab: Lab, leave: Callable[[RawClient], None], raw: Connect) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    client = raw(lab.router.port)
    client.send_chat(stream=True, headers="x-request-id: left-midway\r\n")
    client.read_until(b"first")
    left_at = time.monotonic()
    leave(client)
    assert_seen_in_time(lab.primary.wait_for(CHAT), left_at)
    lab.router.wait_for_log(r"Request cancelled: session=\w+ the client closed the connection")


@both
def test_while_the_web_is_searched(lab: Lab, stream: bool, raw: Connect) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    lab.xai.on(SEARCH, Hang())
    client = raw(lab.router.port)
    client.send_chat(text=anew(), stream=stream)
    leg = lab.xai.wait_for(SEARCH)
    if stream:
        client.read_until(b": searching the web\n\n")
    left_at = time.monotonic()
    client.leave()
    assert_seen_in_time(leg, left_at)


def test_while_the_enriched_answer_streams(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    client = raw(lab.router.port)
    client.send_chat(stream=True, model="enrich")
    client.read_until(b"first")
    left_at = time.monotonic()
    client.leave()
    assert_seen_in_time(lab.primary.wait_for(CHAT), left_at)


def test_a_cancelled_request_is_in_its_session_with_the_part_that_came(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "the first part"})], ending="hang"))
    client = raw(lab.router.port)
    client.send_chat(stream=True)
    head = client.read_until(b"the first part")
    client.leave()
    session_id = head.split(b"x-session-id: ")[1].split(b"\r\n")[0].decode()
    session = lab.router.session(session_id)
    assert session["status"] == "cancelled"
    assert session["response"]["content"] == "the first part"


def test_the_places_of_clients_that_left_are_free_again(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, Hang())
    clients = [raw(lab.router.port) for _ in range(20)]
    for client in clients:
        client.send_chat(model="primary", stream=True)
    lab.primary.wait_for(CHAT, 20)
    for client in clients:
        client.leave()
    for leg in lab.primary.calls(CHAT):
        assert leg.gone.wait(5)
    lab.primary.on(CHAT, says("fine"))
    assert lab.router.chat(model="primary")[0] == 200


def test_the_speculative_answer_of_a_client_that_left_is_closed_too(lab: Lab, raw: Connect) -> None:
    lab.classifier.on(CHAT, Hang())
    lab.primary.on(CHAT, Stream([chunk({"content": "primed"})], ending="hang"))
    descriptors = Path(f"/proc/{worker_of(lab.router)}/fd")
    before = len(list(descriptors.iterdir()))
    for number in range(1, 31):
        client = raw(lab.router.port)
        client.send_chat(stream=True)
        speculative = lab.primary.wait_for(CHAT, number)
        # Only when its headers and first event are out can the speculation be primed.
        assert speculative.streaming.wait(5)
        client.leave()
        assert speculative.gone.wait(5)
    assert eventually(lambda: len(list(descriptors.iterdir())) < before + 15)


def test_one_client_s_departure_never_ends_another_s_request(lab: Lab) -> None:
    lab.primary.on(CHAT, says("x"))
    wrong: list[int] = []

    def ask() -> None:
        for _ in range(60):
            # A new connection each: the number of a descriptor is soon somebody else's.
            status = lab.router.chat(model="primary")[0]
            if status != 200:
                wrong.append(status)

    askers = [threading.Thread(target=ask) for _ in range(16)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert not wrong


def test_a_client_that_closes_right_after_done_was_not_cancelled(lab: Lab, raw: Connect) -> None:
    for _ in range(20):
        client = raw(lab.router.port)
        client.send_chat(stream=True, model="primary")
        head = client.read_until(b"[DONE]")
        client.leave()
        session_id = head.split(b"x-session-id: ")[1].split(b"\r\n")[0].decode()
        assert lab.router.session(session_id)["status"] == "ok"


def test_a_connect_that_hangs_is_given_up_when_the_client_leaves(tmp_path: Path, raw: Connect) -> None:
    with black_hole() as url, running_router(tmp_path, PRIMARY_URL=url, CONNECT_TIMEOUT_S="20") as router:
        client = raw(router.port)
        client.send_chat(stream=True)
        assert eventually(lambda: in_flight(router) == 1)
        client.leave()
        assert eventually(lambda: in_flight(router) == 0, 5), "the place was held for the connect's timeout"


def in_flight(router: RunningRouter) -> int:
    return orjson.loads(router.get("/health")[2])["in_flight"]


@contextmanager
def black_hole() -> Iterator[str]:
    """An address whose connects are never answered: a listener whose queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for filler in fillers:
            filler.close()


# Speculation


@both
@pytest.mark.parametrize(("label", "route"), [("COMPLEX", "xai"), ("ENRICH", "enrich")])
def test_a_lost_speculation_is_shut_at_once_and_nobody_sees_a_byte_of_it(
    lab: Lab, stream: bool, label: str, route: str
) -> None:
    lab.classifier.on(CHAT, classifies(label, delay=0.3))
    secret = Stream([chunk({"content": "SPECULATIVE"})], ending="hang") if stream else Hang()
    lab.primary.on(CHAT, secret, says("after the search"))
    _, headers, body = lab.router.chat(stream=stream)
    decided_at = lab.classifier.wait_for(CHAT).arrived_at + 0.3
    speculative = lab.primary.calls(CHAT)[0]
    assert_seen_in_time(speculative, decided_at)
    assert b"SPECULATIVE" not in body
    assert (headers["x-router-route"], headers["x-router-speculation"]) == (route, "cancelled")
    lab.router.wait_for_log(rf"Cancelled speculative primary \(route={route}\)")


@both
def test_a_confirmed_speculation_is_not_sent_again_and_flows_at_once(lab: Lab, stream: bool) -> None:
    classification_s, primary_s = 0.6, 0.5
    lab.classifier.on(CHAT, classifies("MODERATE", delay=classification_s))
    lab.primary.on(CHAT, says("a", "b", ttft=primary_s))
    started = time.monotonic()
    _, headers, _ = lab.router.chat(stream=stream)
    took = time.monotonic() - started
    assert len(lab.primary.calls(CHAT)) == 1
    assert headers["x-router-speculation"] == "hit"
    # In parallel, so nearer to the longer of the two than to their sum.
    assert took < (max(classification_s, primary_s) + classification_s + primary_s) / 2


def test_the_connection_to_the_constrained_classifier_is_kept_alive(lab: Lab) -> None:
    for _ in range(2):
        lab.router.chat()
    assert len({request.connection for request in lab.classifier.calls(CHAT)}) == 1
