"""Reading the error bodies of backends: which UpstreamError an answer, or an event of a stream, amounts to.

The shapes, as the backends send them:
OpenAI, vLLM: ``{"error": {"message", "type", "param", "code"}}``; vLLM for a bad key: ``{"error": "Unauthorized"}``.
xAI: ``{"code": "...", "error": "text"}``, and status 400 for a bad key. Gemini: ``[{"error": {...}}]``.
OpenRouter: ``metadata`` inside ``error``, and ``error`` on a choice. FastAPI: ``{"detail": ...}``, which is a list of
``{"loc", "msg"}`` where pydantic found it. Older vLLM: ``{"object": "error", "message", "type", "code"}``. Others:
``{"message": ...}``, ``{"errors": [...]}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import orjson

from ai_router.errors import (
    UpstreamError,
    UpstreamExhausted,
    UpstreamFailed,
    UpstreamLimited,
    UpstreamMisconfigured,
    UpstreamRefused,
)
from ai_router.http.calls import UpstreamRequest

_MAX_MESSAGE = 2_000
"""Characters of a backend's message that are kept."""
_MAX_CODE = 100
_LONGEST_WAIT_S = 3600.0
"""Clients are told no longer one."""
_DIGITS = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,9})?")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_AMOUNT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_AMOUNT.pattern})+")
_OLDEST_EPOCH_S = 1e9
"""More seconds than that are counted from 1970."""
_RESETS = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "x-ratelimit-reset")
_STATUS = re.compile(r"[45][0-9]{2}")
_BAD_KEY = re.compile(
    r"(?:incorrect|invalid|missing|expired|no) api key|api key (?:not valid|not found|is invalid|expired)",
    re.IGNORECASE,
)
"""How xAI and Gemini report a bad key with a status 400. Nothing looser: a message may quote the client's request."""
_REFUSED_AS_500 = re.compile(
    r"(?:(?:image|audio|video) input is not supported|multimodal data provided, but"
    r"|failed to (?:parse (?:tools|messages|tool call arguments|grammar)|initialize samplers|load image or audio)"
    r"|(?:tools|tool_choice) param requires|invalid tool_choice|json schema conversion failed"
    r"|unable to generate parser|this custom template is not supported"
    r"|context size has been exceeded|the request exceeds the available context|input .*is too large)",
    re.IGNORECASE,
)
"""How llama.cpp's messages begin where it refuses a request with status 500 (tools/server/server-common.cpp)."""
_MODERATED = re.compile(r"moderat|guardrail|usage guidelines|content policy|flagged", re.IGNORECASE)
_RETRYABLE_STATUSES = frozenset({408, 409, 425})
"""4xx that are not the request's fault: the same request may succeed later."""
_EXHAUSTED_CODES = frozenset({"insufficient_quota", "credit_balance_exhausted"})
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "slow_down": 429,
    "insufficient_quota": 429,
    "credit_balance_exhausted": 429,
    "server_is_overloaded": 503,
    "invalid_api_key": 401,
    "context_length_exceeded": 400,
    "model_not_found": 404,
}
"""The status that belongs to an OpenAI error code, for errors without one of their own (inside a status 200)."""


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What an error body says. ``code`` is the backend's own code as text; ``retry_after_s`` in seconds."""

    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None
    moderated: bool = False
    """Whether the backend refused what the request says, as a moderation does (OpenRouter's metadata)."""


def details_in(payload: Any) -> ErrorDetails | None:
    """The error in a parsed body, in any of the shapes above; None if it holds none."""
    if isinstance(payload, list):
        return next((found for item in payload if (found := details_in(item)) is not None), None)
    if not isinstance(payload, Mapping):
        return None
    error = payload.get("error") or payload.get("detail") or payload.get("errors")
    if not error:
        return _details_of(payload) if _is_error_itself(payload) else None
    if isinstance(error, list) and (first := next((item for item in error if isinstance(item, Mapping)), None)):
        error = first
    if isinstance(error, Mapping):
        return _details_of(error)
    outer_code = payload.get("code")
    text = error if isinstance(error, str) else _as_json(error)
    return ErrorDetails(text, code=_as_text(outer_code))


def _is_error_itself(payload: Mapping[str, Any]) -> bool:
    """Whether the object is no answer, but what other backends put into ``error``."""
    return "choices" not in payload and (payload.get("object") == "error" or isinstance(payload.get("message"), str))


def _details_of(error: Mapping[str, Any]) -> ErrorDetails:
    message = error.get("message") or error.get("msg")
    param = error.get("param")
    metadata = error.get("metadata")
    return ErrorDetails(
        message=message if isinstance(message, str) and message else _as_json(error),
        code=_as_text(error.get("code")),
        param=param if isinstance(param, str) else None,
        retry_after_s=_retry_after_in(metadata, error.get("details")),
        moderated=_was_moderated(metadata),
    )


def error_on_choice(payload: Mapping[str, Any]) -> Any:
    """What stands as an error on one of the choices of an answer, or of a chunk; None: nothing does."""
    choices = payload.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, Mapping) and (error := choice.get("error")):
            return error
    return None


def _as_text(code: Any) -> str | None:
    """A backend's own code, which may be a number of any length."""
    return None if code is None else str(code)[:_MAX_CODE]


def redacted_details(payload: Any, upstream_request: UpstreamRequest) -> ErrorDetails | None:
    """``details_in`` with the backend's key replaced by ``***`` and a message of at most 2,000 characters."""
    details = details_in(payload)
    return None if details is None else _redacted(details, upstream_request)


def error_from_response(
    status: int, headers: Mapping[str, str], body: bytes, upstream_request: UpstreamRequest
) -> UpstreamError:
    """The error for an answer with a ``status`` other than 200. The names in ``headers`` are in lower case."""
    details = _redacted(
        _details_in_body(body) or ErrorDetails(f"HTTP {status} without an explanation"), upstream_request
    )
    return _error_for(status, details, upstream_request, retry_after_s(headers), prefix=f"HTTP {status}: ")


def error_in_body(payload: Any, upstream_request: UpstreamRequest) -> UpstreamError | None:
    """The error inside a parsed answer of status 200, or inside an event of a stream; None if there is none.

    Its code decides, if that is an HTTP status, as OpenRouter's and vLLM's are, or a code of OpenAI's that is known.
    With any other it is UpstreamFailed.
    """
    if isinstance(payload, dict) and "choices" in payload and not payload.get("error"):
        error = error_on_choice(payload)
        if error is None:
            return None
        payload = {"error": error}
    details = redacted_details(payload, upstream_request)
    if details is None:
        return None
    code = details.code or ""
    status = int(code) if _STATUS.fullmatch(code) else _STATUS_OF_CODE.get(code, 502)
    return _error_for(status, details, upstream_request, None, prefix="")


def _error_for(
    status: int, details: ErrorDetails, upstream_request: UpstreamRequest, retry_after: float | None, prefix: str
) -> UpstreamError:
    message, code = details.message, details.code
    own_words = f"refused with HTTP {status}" if prefix else f"an error of status {status} inside its answer"
    if 300 <= status < 400:
        return UpstreamMisconfigured(f"HTTP {status}: the address redirects, which is refused", upstream_request.source)
    source = upstream_request.source
    if status == 500 and _REFUSED_AS_500.match(message):
        return UpstreamRefused(message, source, param=details.param, own_words=own_words)
    if status == 403 and (details.moderated or _MODERATED.search(message)):
        return UpstreamRefused(message, source, status=status, code=code, param=details.param, own_words=own_words)
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(message)):
        return UpstreamMisconfigured(f"HTTP {status}: {_without_key(message)}", source, own_words=own_words)
    retry_after = details.retry_after_s if retry_after is None else retry_after
    if retry_after is not None:
        retry_after = min(retry_after, _LONGEST_WAIT_S)
    if status == 402 or (status == 429 and (code in _EXHAUSTED_CODES or "per-day" in message)):
        return UpstreamExhausted(f"{prefix}{message}", source, code=code, own_words=own_words)
    if status == 429:
        return UpstreamLimited(f"{prefix}{message}", source, code=code, retry_after_s=retry_after, own_words=own_words)
    if 400 <= status < 500 and status not in _RETRYABLE_STATUSES:
        return UpstreamRefused(message, source, status=status, code=code, param=details.param, own_words=own_words)
    shown_status = status if status in (503, 504) else 502
    return UpstreamFailed(
        f"{prefix}{message}",
        source,
        status=shown_status,
        code=code,
        retry_after_s=retry_after,
        own_words=own_words,
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the backend asks to wait, in seconds; None if it does not, or not in a form that is known.

    Read from ``retry-after-ms`` (OpenAI's), from ``retry-after`` in seconds, with a fraction or a unit, or as an HTTP
    date (RFC 9110 10.2.3), and else from what says when the quota is renewed: ``x-ratelimit-reset-requests``,
    ``-tokens`` (OpenAI: "6m0s", "350ms") and ``x-ratelimit-reset`` (OpenRouter: milliseconds since 1970).
    """
    if _DIGITS.fullmatch(millis := headers.get("retry-after-ms", "").strip()):
        return int(millis) / 1000
    value = headers.get("retry-after", "").strip()
    if (waits := _duration_s(value)) is not None:
        return waits
    try:
        # The header is a date, so it is compared with the wall clock.
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        resets = [_duration_s(headers[name]) for name in _RESETS if name in headers]
        return max((reset for reset in resets if reset is not None), default=None)


def _duration_s(value: str) -> float | None:
    """Seconds in "1.5", "34s", "6m0.2s", "350ms"; or from now to so many (milli)seconds since 1970."""
    value = value.strip().lower()
    if _NUMBER.fullmatch(value):
        number = float(value)
        if number < _OLDEST_EPOCH_S:
            return number
        return max(0.0, number / (1000 if number > 1000 * _OLDEST_EPOCH_S else 1) - time())
    if not _DURATION.fullmatch(value):
        return None
    return sum(float(amount) * _UNITS_S[unit] for amount, unit in _AMOUNT.findall(value))


def _retry_after_in(metadata: Any, details: Any) -> float | None:
    """OpenRouter's ``metadata.retry_after_seconds``, or Google's RetryInfo among ``details`` ("retryDelay": "34s")."""
    seconds = metadata.get("retry_after_seconds") if isinstance(metadata, Mapping) else None
    if isinstance(seconds, (int, float)) and 0 <= seconds < 1e6:
        return float(seconds)
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and isinstance(delay := detail.get("retryDelay"), str):
            return _duration_s(delay)
    return None


def _was_moderated(metadata: Any) -> bool:
    return isinstance(metadata, Mapping) and ("flagged_input" in metadata or "reasons" in metadata)


def _details_in_body(body: bytes) -> ErrorDetails | None:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace").strip()
        return ErrorDetails(text) if text and not text.startswith("<") else None
    return details_in(payload)


def _as_json(error: Any) -> str:
    """An error of an unknown shape, quoted as it came."""
    try:
        return orjson.dumps(error).decode()
    except orjson.JSONEncodeError:
        return "an error too deeply nested to be quoted"


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def _redacted(details: ErrorDetails, upstream_request: UpstreamRequest) -> ErrorDetails:
    """The details without our key, which some providers repeat, and with a message that is not too long."""
    if not upstream_request.secret:
        return replace(details, message=_clip(details.message))
    secret = upstream_request.secret

    def clean(text: str | None) -> str | None:
        return None if text is None else text.replace(secret, "***")

    message = _clip(details.message.replace(secret, "***"))
    return replace(details, message=message, code=clean(details.code), param=clean(details.param))


def _without_key(message: str) -> str:
    """A message about a rejected key, up to the colon: "Incorrect API key provided: sk-ab***yz" shows part of it."""
    return message.partition(":")[0]
