"""HTTP/1.1 in bytes: any cut of an answer is the same answer."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.http.http1 import MAX_HEADER_BYTES, NotHTTP, ResponseParser, request_header_block

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nTrailer: t\r\n\r\n"
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
BODY = b"0123456789"


def read(portions: list[bytes]) -> tuple[ResponseParser, bytes]:
    parser, body = ResponseParser(), b""
    for portion in portions:
        if parser.headers_complete:
            body += parser.feed(portion)
        else:
            parser.feed_headers(portion)
            body += parser.take_body() if parser.headers_complete else b""
    return parser, body


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({place % len(data) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@given(st.sampled_from([LENGTH, CHUNKED, INTERIM + LENGTH]), st.lists(st.integers(0, 1000), max_size=20))
def test_the_answer_does_not_depend_on_where_its_bytes_are_cut(answer: bytes, cuts: list[int]) -> None:
    parser, body = read(cut(answer, cuts))
    assert (parser.status, body, parser.complete, parser.reusable) == (200, BODY, True, True)
    assert "link" not in parser.headers


@given(st.binary(max_size=300))
def test_whatever_comes_it_is_an_answer_or_not_http(data: bytes) -> None:
    try:
        read([data])
    except NotHTTP:
        return


def test_names_are_lower_case_and_repeated_headers_are_joined() -> None:
    parser, _ = read([b"HTTP/1.1 429 No\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n"])
    assert (parser.status, parser.headers["retry-after"], parser.headers["x-a"]) == (429, "3", "1, 2")


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
    parser, body = read([answer])
    assert (body, parser.complete, parser.reusable) == (BODY, True, False)


def test_without_a_length_the_end_of_the_connection_is_the_end() -> None:
    parser, body = read([b"HTTP/1.1 200 OK\r\n\r\n0123", b"456789"])
    assert not parser.complete
    assert parser.feed_eof()
    assert (body, parser.reusable) == (BODY, False)


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED])
def test_an_end_before_the_end_is_none(answer: bytes) -> None:
    parser, _ = read([answer[:-6]])
    assert not parser.feed_eof()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_compressed_body_is_read_although_none_was_asked_for(name: str) -> None:
    packed = gzip.compress(BODY) if name == "gzip" else zlib.compress(BODY)
    headers = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(packed))
    assert read([headers + packed[:7], packed[7:]])[1] == BODY


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


def test_headers_without_an_end_are_refused() -> None:
    lines = [b"X-Name: " + b"x" * 1000 + b"\r\n"] * (MAX_HEADER_BYTES // 1000 + 2)
    with pytest.raises(NotHTTP, match="headers of more than"):
        read([b"HTTP/1.1 200 OK\r\n", *lines])


def test_the_header_block_of_a_request() -> None:
    header_block = request_header_block("POST", "/v1/chat/completions", {"Host": "gpu:8000", "Content-Length": "2"})
    assert header_block == b"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu:8000\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\x00"])
def test_a_header_cannot_become_two(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_header_block("GET", "/", {"X-Request-Id": value})


def test_bytes_after_the_answer_are_dropped_and_the_connection_is_not_reused() -> None:
    other = b"HTTP/1.1 500 No\r\nX-Other: 1\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nother"
    parser, body = read([LENGTH + other])
    assert (parser.status, body, parser.reusable) == (200, BODY, False)
    assert "x-other" not in parser.headers


def test_any_spelling_of_chunked_has_an_end_of_its_own() -> None:
    parser, _ = read([CHUNKED.replace(b"chunked", b"Chunked")[:-6]])
    assert not parser.feed_eof()


def test_lines_that_end_as_unix_has_it_are_lines() -> None:
    assert read([LENGTH.replace(b"\r\n", b"\n")])[1] == BODY


def test_blanks_behind_the_size_of_a_chunk_are_none_of_it() -> None:
    padded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4   \r\n0123\r\n6     \r\n456789\r\n0\r\n\r\n"
    parser, body = read([padded])
    assert (parser.complete, body) == (True, BODY)


MEMBERS = gzip.compress(BODY[:4]) + gzip.compress(b"") + gzip.compress(BODY[4:]) + bytes(7)


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_a_gzip_of_several_members_is_read_to_its_end(cuts: list[int]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(MEMBERS)
    parser, body = read([head, *cut(MEMBERS, cuts)])
    assert (parser.complete, body) == (True, BODY)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 1_100,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n0\r\n" + b"X: a\r\n" * 1_100,
    ],
    ids=["in front of the body", "behind it"],
)
def test_headers_without_number_are_refused(answer: bytes) -> None:
    with pytest.raises(NotHTTP):
        read(cut(answer, list(range(0, len(answer), 500))))


def test_headers_behind_the_body_do_not_change_those_in_front() -> None:
    parser, _ = read([CHUNKED.replace(b"Trailer: t", b"Transfer-Encoding: gzip\r\nX-Late: 1")])
    assert parser.headers == {"transfer-encoding": "chunked"}
