"""Where a request ends, in whatever portions it comes."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.server.connection import MAX_HEADER_BYTES, Connection, RequestReader, RequestThreads
from tests.fakes.loops import Policy, limits

PLAIN = b"POST /v1/chat/completions?a=1 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: k\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
BARE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"


@given(st.sampled_from([PLAIN, CHUNKED, BARE, OLD]), st.lists(st.integers(0, 120), max_size=5))
def test_a_request_is_complete_with_its_last_byte_and_not_before(request: bytes, cuts: list[int]) -> None:
    reader, at = RequestReader(), 0
    for cut in sorted({min(cut, len(request) - 1) for cut in cuts} - {0}):
        reader.feed(request[at:cut])
        at = cut
        assert (reader.complete, reader.broken) == (False, False)
    reader.feed(request[at:])
    assert reader.complete
    assert reader.take() == request


def test_what_the_server_has_to_know_is_read_from_the_headers() -> None:
    reader = RequestReader()
    reader.feed(PLAIN[:-5])
    assert reader.headers_complete
    assert not reader.complete
    assert (reader.method, reader.path) == ("POST", "/v1/chat/completions")
    assert (reader.content_length, reader.x_api_key) == (5, "k")


def test_a_request_behind_another_is_not_mistaken_for_it() -> None:
    reader = RequestReader()
    reader.feed(BARE + PLAIN)
    assert reader.complete
    assert (reader.method, reader.path, reader.x_api_key) == ("GET", "/health/live", "")
    assert reader.take() == BARE + PLAIN


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00", b"HELLO\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * (MAX_HEADER_BYTES + 1)],
    ids=["tls", "no verb", "endless"],
)
def test_what_is_no_request_is_known_without_waiting_for_more(nonsense: bytes) -> None:
    reader = RequestReader()
    reader.feed(nonsense)
    assert reader.broken


def test_a_client_that_waits_to_be_asked_for_its_body_is_known() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert reader.expects_continue


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    reader = RequestReader()
    reader.feed(data)
    reader.feed(data)


def asking(key: bytes) -> Connection:
    """A connection with a request for a backend, with this key."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        conn = Connection(ours, None, None)
    conn.reader.feed(b"POST /chat HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: " + key + b"\r\nContent-Length: 0\r\n\r\n")
    return conn


def test_the_next_thread_is_for_the_client_that_holds_the_fewest() -> None:
    threads = RequestThreads(limits(backend_threads=3), Policy(), lambda _: None, lambda: None)
    held = [asking(b"many"), asking(b"many"), asking(b"one")]
    assert all(map(threads.acquire, held))
    waiting = [asking(key) for key in (b"many", b"one", b"one", b"none")]
    assert not any(map(threads.acquire, waiting))
    turns = []
    for gone in held:
        threads.release(gone)
        turns.append(threads.next_of(waiting))
        waiting.remove(turns[-1])
        assert threads.acquire(turns[-1])
    assert [conn.client for conn in turns] == ["none", "many", "one"]
    threads.shut_down()
