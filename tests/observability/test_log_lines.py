"""The log lines that a quick end-to-end test cannot provoke."""

from __future__ import annotations

import logging

import pytest

from ai_router.observability import log_lines
from ai_router.types import Attempt, Status
from tests.storage.test_session_logger import outcome


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(
    ("route", "limit"), [("primary", 5_000), ("meta", 5_000), ("xai", 30_000), ("enrich", 60_000), ("other", 30_000)]
)
def test_a_request_over_its_route_s_limit_is_slow(lines: pytest.LogCaptureFixture, route: str, limit: int) -> None:
    log_lines.finished(outcome(route=route, timings={"inference_ms": 3.2, "total_ms": limit}))
    assert not [message for message in lines.messages if message.startswith("SLOW")]
    log_lines.finished(outcome(route=route, timings={"inference_ms": 3.2, "total_ms": limit + 1}))
    assert lines.messages[-1] == (
        f"SLOW_REQUEST session=dba46d38 route={route} total_ms={limit + 1}"
        " decided_by=classifier inference_ms=3 stream=False"
    )


def test_a_field_without_a_value_is_left_out(lines: pytest.LogCaptureFixture) -> None:
    log_lines.finished(outcome(route="meta", timings={"inference_ms": 1.6, "total_ms": 2.4}))
    assert lines.messages == ["REQUEST session=dba46d38 route=meta inference_ms=2 total_ms=2 stream=False"]


def test_what_a_backend_says_cannot_begin_a_line(lines: pytest.LogCaptureFixture) -> None:
    log_lines.provider_failed("primary", "boom\nREQUEST session=forged", "no more")
    log_lines.finished(outcome(status=Status.ERROR, error="a\nb"))
    assert not [message for message in lines.messages if "\n" in message]


def test_a_missing_finish_reason_is_written_none(lines: pytest.LogCaptureFixture) -> None:
    log_lines.responded(Attempt("xai", "m", 0, 12.5, stream=False, status=200))
    assert lines.messages == ["Provider response: xai status=200 duration_ms=12 finish_reason=none stream=false"]
