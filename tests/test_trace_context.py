"""traceparent: what is passed on, and what is made of it."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.trace_context import SAMPLED, begin_trace, parse_traceparent

CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_without_tracing_the_client_s_header_goes_on_as_it_came() -> None:
    trace = parse_traceparent(CLIENTS)
    assert trace is not None
    assert trace.header(1) == trace.header(2) == CLIENTS


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        CLIENTS.upper(),
        CLIENTS.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        CLIENTS.replace("b7ad6b7169203331", "0" * 16),
        "ff" + CLIENTS[2:],
        CLIENTS + "-more",
        CLIENTS[:-1],
    ],
)
def test_a_header_that_is_none_is_not_passed_on(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_later_version_is_read_as_far_as_we_know_it() -> None:
    trace = parse_traceparent("01" + CLIENTS[2:] + "-more")
    assert trace is not None
    assert trace.header(1) == CLIENTS


def test_with_tracing_each_call_has_a_span_of_its_own_in_the_client_s_trace() -> None:
    trace = begin_trace(CLIENTS, random.Random(1))
    headers = [trace.header(leg) for leg in (1, 2)]
    assert len({CLIENTS, *headers}) == 3
    assert all(header.startswith(CLIENTS[:36]) for header in headers)
    assert f"{trace.call_span(2):016x}" in headers[1]


def test_a_request_without_a_trace_begins_one_that_is_sampled() -> None:
    trace = begin_trace(None, random.Random(1))
    assert trace.parent_id is None
    assert trace.flags == SAMPLED


def test_a_client_that_does_not_sample_is_heeded() -> None:
    assert begin_trace(CLIENTS[:-1] + "0", random.Random(1)).flags == 0


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_whatever_comes_what_goes_on_is_well_formed(header: str) -> None:
    trace = parse_traceparent(header)
    assert trace is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", trace.header(3))
