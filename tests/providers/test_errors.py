"""What backends say when they say no, in the shapes collected from them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.envelope import envelope
from ai_router.errors import (
    Source,
    UpstreamExhausted,
    UpstreamFailed,
    UpstreamLimited,
    UpstreamMisconfigured,
    UpstreamRefused,
)
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.providers.errors import details_in, error_from_response, error_in_body, retry_after_s

CALL = UpstreamRequest(Source("xai", "grok"), "POST", "http://x", Timeouts(1, 1, 1))


def refused(status: int, payload: Any, headers: dict[str, str] | None = None) -> Any:
    return error_from_response(status, headers or {}, orjson.dumps(payload), CALL)


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "no", "type": "t", "param": None, "code": 400}},
        {"error": "no"},
        {"code": "x", "error": "no"},
        [{"error": {"message": "no"}}],
        {"detail": "no"},
    ],
    ids=["vllm", "vllm 401", "xai", "gemini", "fastapi"],
)
def test_the_message_is_found_in_every_shape(payload: Any) -> None:
    details = details_in(payload)
    assert details is not None
    assert details.message == "no"


@pytest.mark.parametrize("payload", [{"error": {"odd": 1}}, {"error": [1, 2]}, {"detail": [{"loc": ["body"]}]}])
def test_a_shape_nobody_knows_is_quoted(payload: Any) -> None:
    details = details_in(payload)
    assert details is not None
    assert details.message


def test_a_shape_too_deep_to_quote_is_still_a_complaint() -> None:
    deep = orjson.loads(b'{"error": ' + b"[" * 400 + b"]" * 400 + b"}")
    deep["error"][0].append(1)
    details = details_in(deep)
    assert details is not None
    assert "too deeply nested" in details.message


@pytest.mark.parametrize("payload", [{}, {"error": None}, {"error": ""}, [], "text", None, 3])
def test_no_error_is_no_complaint(payload: Any) -> None:
    assert details_in(payload) is None


@pytest.mark.parametrize("status", [400, 404, 410, 413, 422])
def test_a_refusal_keeps_its_status_and_is_not_taken_elsewhere(status: int) -> None:
    error = refused(status, {"error": {"message": "no", "param": "p", "code": "c"}})
    assert isinstance(error, UpstreamRefused)
    assert (error.status, error.recoverable) == (status, False)
    assert envelope(error)["error"] == {
        "message": "xai (grok): no",
        "type": "invalid_request_error",
        "param": "p",
        "code": "c",
    }


@pytest.mark.parametrize(
    ("status", "payload"),
    [
        (401, {"error": "Unauthorized"}),
        (403, {}),
        (400, {"error": "Incorrect API key provided: xai-se***et"}),
    ],
)
def test_a_rejected_key_is_ours_to_mend(status: int, payload: Any) -> None:
    error = refused(status, payload)
    assert isinstance(error, UpstreamMisconfigured)
    assert (error.status, error.recoverable) == (502, True)
    assert "se***et" not in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "audio input is not supported - hint: ...",
        "Failed to parse tools: [json.exception.type_error.302]",
        "Failed to parse messages: ...",
        "tools param requires --jinja flag",
        "Context size has been exceeded.",
        "Failed to initialize samplers: failed to parse grammar",
    ],
)
def test_what_llama_cpp_refuses_with_a_500_is_a_refusal(message: str) -> None:
    body = {"error": {"code": 500, "message": message, "type": "server_error"}}
    for error in (refused(500, body), error_in_body(body, CALL)):
        assert isinstance(error, UpstreamRefused)
        assert (error.status, error.code, error.recoverable, error.transient) == (400, "upstream_refused", False, False)
        assert message in str(error)
    assert isinstance(refused(500, {"error": {"message": f"cannot say '{message}'"}}), UpstreamFailed)
    assert isinstance(refused(503, body), UpstreamFailed)


@pytest.mark.parametrize(("status", "shown"), [(429, 429), (500, 502), (502, 502), (503, 503), (504, 504)])
def test_a_failure_is_recoverable(status: int, shown: int) -> None:
    error = refused(status, {"error": "busy"})
    assert isinstance(error, (UpstreamFailed, UpstreamLimited))
    assert (error.status, error.recoverable) == (shown, True)


def test_a_body_that_is_no_json_is_quoted_unless_it_is_a_page() -> None:
    assert "exploded" in str(error_from_response(500, {}, b"exploded", CALL))
    assert "html" not in str(error_from_response(500, {}, b"<html>..", CALL))


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "no way"}},
        {"error": "no way"},
        [{"error": {"message": "no way"}}],
        {"object": "error", "message": "no way", "type": "x", "param": None},
        {"message": "no way", "request_id": "r"},
        {"detail": "no way"},
        {"detail": [{"loc": ["body"], "msg": "no way"}]},
        {"errors": [{"message": "no way"}]},
        {"errors": "no way"},
        {"choices": [{"index": 0}, {"index": 1, "finish_reason": "error", "error": {"message": "no way"}}]},
        {"choices": [{"error": "no way"}]},
    ],
)
def test_an_error_wearing_a_200_is_seen_and_its_words_are_kept(payload: Any) -> None:
    error = error_in_body(payload, CALL)
    assert isinstance(error, UpstreamFailed)
    assert "no way" in str(error)
    assert "{" not in str(error)


@pytest.mark.parametrize(
    "payload",
    [
        {"object": "error", "message": "too long", "code": 400},
        {"message": "too long"},
        {"detail": [{"loc": ["body"], "msg": "too long"}]},
        {"errors": [{"message": "too long"}]},
    ],
)
def test_a_refusal_of_another_shape_keeps_its_words(payload: Any) -> None:
    assert str(refused(400, payload)) == "xai (grok): too long"


@pytest.mark.parametrize("code", ["9" * 5_000, "-1", "4e2", "\uff16\uff10\uff10", "429.0", 10**400])
def test_a_code_of_any_length_and_form_is_no_status(code: Any) -> None:
    error = error_in_body({"error": {"message": "no", "code": code}}, CALL)
    assert isinstance(error, UpstreamFailed)
    assert len(error.code or "") <= 100


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": []},
        {"choices": [], "error": None},
        {"choices": [{"error": None}]},
        {"output": [], "error": None},
        [],
        1,
    ],
)
def test_an_answer_is_no_error(payload: Any) -> None:
    assert error_in_body(payload, CALL) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 34s "}, 34),
        ({"retry-after": "soon", "x-ratelimit-reset-requests": "6m0.5s", "x-ratelimit-reset-tokens": "350ms"}, 360.5),
        ({"x-ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-reset": "1000000001"}, 0),
        ({"x-ratelimit-reset": "s"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "\u00b2"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after-ms": "1e999"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


@given(st.integers(300, 599), st.text(max_size=30), st.binary(max_size=60))
def test_no_refusal_can_break_the_reading_of_it(status: int, retry_after: str, body: bytes) -> None:
    assert str(error_from_response(status, {"retry-after": retry_after, "retry-after-ms": retry_after}, body, CALL))


def test_a_wait_of_years_is_told_as_an_hour() -> None:
    error = error_from_response(429, {"retry-after": "999999999"}, b'{"error": "busy"}', CALL)
    assert error.retry_after_s == 3600


def test_google_s_retry_info_is_read() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    error = refused(429, [{"error": {"code": 429, "message": "busy", "details": details}}])
    assert error.retry_after_s == 34.5


def test_a_reset_in_milliseconds_since_1970_is_counted_from_now() -> None:
    found = retry_after_s({"x-ratelimit-reset": str(int((time.time() + 60) * 1000))})
    assert found == pytest.approx(60, abs=5)


def test_retry_after_as_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    found = retry_after_s({"retry-after": format_datetime(later, usegmt=True)})
    assert found is not None
    assert 88 < found <= 90


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"error": {"code": 429, "message": "slow"}}, UpstreamLimited),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow"}}, UpstreamLimited),
        ({"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day"}}, UpstreamExhausted),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, UpstreamExhausted),
        ({"error": {"code": 401, "message": "key"}}, UpstreamMisconfigured),
        ({"error": {"code": 400, "message": "too long"}}, UpstreamRefused),
        ({"error": {"code": "context_length_exceeded", "message": "too long"}}, UpstreamRefused),
        ({"error": {"code": 503, "message": "full"}}, UpstreamFailed),
        ({"error": {"code": "E42", "message": "?"}}, UpstreamFailed),
    ],
)
def test_the_code_in_a_body_says_what_an_error_with_a_200_is(payload: Any, kind: type) -> None:
    assert type(error_in_body(payload, CALL)) is kind


def test_a_429_for_want_of_money_is_not_waited_for() -> None:
    assert isinstance(refused(429, {"error": {"code": "insufficient_quota", "message": "pay"}}), UpstreamExhausted)


def test_openrouter_says_in_the_body_when_to_come_back() -> None:
    error = {"code": 429, "message": "busy", "metadata": {"retry_after_seconds": 17}}
    limited = refused(429, {"error": error})
    assert isinstance(limited, UpstreamLimited)
    assert limited.retry_after_s == 17


def test_402_is_a_quota_that_is_used_up() -> None:
    assert isinstance(refused(402, {"error": {"message": "add credits"}}), UpstreamExhausted)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "input was flagged", "metadata": {"reasons": ["violence"], "flagged_input": "..."}},
        {"message": "Content violates usage guidelines."},
    ],
)
def test_a_request_that_is_moderated_is_refused_and_the_backend_is_well(error: Any) -> None:
    assert isinstance(refused(403, {"error": error}), UpstreamRefused)


def test_a_client_s_words_about_api_keys_are_no_bad_key() -> None:
    assert isinstance(refused(400, {"error": {"message": 'unknown field "my api key"'}}), UpstreamRefused)
    assert isinstance(refused(400, {"error": "Incorrect API key provided: xai-***"}), UpstreamMisconfigured)


def test_a_key_at_the_edge_of_a_long_message_is_not_left_half_shown() -> None:
    call = UpstreamRequest(Source("xai", "grok"), "POST", "http://x", Timeouts(1, 1, 1), secret="sk-SECRETSECRET")
    body = orjson.dumps({"error": {"message": "x" * 1_990 + " sk-SECRETSECRET"}})
    assert "SECRET" not in str(error_from_response(500, {}, body, call))


def test_a_code_of_odd_digits_is_a_code() -> None:
    assert isinstance(error_in_body({"error": {"code": "\u00b2", "message": "?"}}, CALL), UpstreamFailed)
