"""HTTP/1.1 in bytes: any cut of an answer is the same answer."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.http.http1 import MAX_HEAD_BYTES, Incoming, NotHTTP, request_head

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nTrailer: t\r\n\r\n"
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
BODY = b"0123456789"


def read(portions: list[bytes]) -> tuple[Incoming, bytes]:
    incoming, body = Incoming(), b""
    for portion in portions:
        if incoming.head_complete:
            body += incoming.feed(portion)
        else:
            incoming.begin(portion)
            body += incoming.take() if incoming.head_complete else b""
    return incoming, body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % len(data) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@given(st.sampled_from([LENGTH, CHUNKED, INTERIM + LENGTH]), st.lists(st.integers(0, 1000), max_size=20))
def test_however_it_is_cut_it_is_the_same_answer(answer: bytes, places: list[int]) -> None:
    incoming, body = read(cut(answer, places))
    assert (incoming.status, body, incoming.complete, incoming.reusable) == (200, BODY, True, True)
    assert "link" not in incoming.headers


@given(st.binary(max_size=300))
def test_whatever_comes_it_is_an_answer_or_not_http(data: bytes) -> None:
    try:
        read([data])
    except NotHTTP:
        return


def test_names_are_lower_case_and_repeated_headers_are_joined() -> None:
    incoming, _ = read([b"HTTP/1.1 429 No\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n"])
    assert (incoming.status, incoming.headers["retry-after"], incoming.headers["x-a"]) == (429, "3", "1, 2")


@pytest.mark.parametrize(
    "answer",
    [
        LENGTH.replace(b"Content-Type", b"Connection: close\r\nContent-Type"),
        LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"),
        LENGTH + b"HTTP/1.1 200 OK\r\n",
        LENGTH + b"\x00nonsense",
    ],
    ids=["it says so", "HTTP/1.0", "another answer behind it", "nonsense behind it"],
)
def test_a_connection_that_cannot_be_used_again(answer: bytes) -> None:
    incoming, body = read([answer])
    assert (body, incoming.complete, incoming.reusable) == (BODY, True, False)


def test_without_a_length_the_end_of_the_connection_is_the_end() -> None:
    incoming, body = read([b"HTTP/1.1 200 OK\r\n\r\n0123", b"456789"])
    assert not incoming.complete
    assert incoming.end()
    assert (body, incoming.reusable) == (BODY, False)


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED])
def test_an_end_before_the_end_is_none(answer: bytes) -> None:
    incoming, _ = read([answer[:-6]])
    assert not incoming.end()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_body_that_is_compressed_although_nobody_asked(name: str) -> None:
    packed = gzip.compress(BODY) if name == "gzip" else zlib.compress(BODY)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(packed))
    assert read([head + packed[:7], packed[7:]])[1] == BODY


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "Expected HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "chunk size"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", "not compressed"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switches"),
    ],
)
def test_what_is_no_answer_is_named(answer: bytes, why: str) -> None:
    with pytest.raises(NotHTTP, match=why):
        read([answer])


def test_a_body_that_inflates_beyond_all_measure_is_none() -> None:
    packed = gzip.compress(bytes(20 << 20))
    with pytest.raises(NotHTTP, match="too much"):
        read([b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed])


def test_headers_without_an_end_are_none() -> None:
    lines = [b"X-Name: " + b"x" * 1000 + b"\r\n"] * (MAX_HEAD_BYTES // 1000 + 2)
    with pytest.raises(NotHTTP, match="headers of more than"):
        read([b"HTTP/1.1 200 OK\r\n", *lines])


def test_a_request_s_head() -> None:
    head = request_head("POST", "/v1/chat/completions", {"Host": "gpu:8000", "Content-Length": "2"})
    assert head == b"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu:8000\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\x00"])
def test_a_header_cannot_become_two(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", {"X-Request-Id": value})


def test_an_answer_behind_the_answer_reaches_nobody() -> None:
    other = b"HTTP/1.1 500 No\r\nX-Other: 1\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nother"
    incoming, body = read([LENGTH + other])
    assert (incoming.status, body, incoming.reusable) == (200, BODY, False)
    assert "x-other" not in incoming.headers


def test_any_spelling_of_chunked_has_an_end_of_its_own() -> None:
    incoming, _ = read([CHUNKED.replace(b"chunked", b"Chunked")[:-6]])
    assert not incoming.end()


def test_lines_that_end_as_unix_has_it_are_lines() -> None:
    assert read([LENGTH.replace(b"\r\n", b"\n")])[1] == BODY
