"""Reading a chat request: its body, then its fields, or an error that names the field.

Only what the router itself reads is checked; the rest is the backend's to judge. orjson refuses NaN, lone surrogates,
invalid UTF-8, numbers beyond a double and nesting beyond 1,024; of duplicate keys the last one wins, and what goes
upstream is serialised anew from that.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from ai_router.dispatch.permission import check_fields
from ai_router.errors import BodyTooLarge, ClientGone, InvalidRequest
from ai_router.providers.registry import AUTO
from ai_router.routing.prompt import job_in_headers, text_of
from ai_router.storage.session_logger import SessionLogger
from ai_router.trace_context import Trace
from ai_router.types import ChatRequest
from ai_router.virtual_key import VirtualKey
from ai_router.web.policy import why_local_only, without_own_fields
from ai_router.web.quality import wanted_quality
from ai_router.web.unpacking import unpacked

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText

_BEFORE_VALUES = (b",", b"[", b"{")
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_ORGANIZATION = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PORTION = 1 << 20
"""Of a body whose length is known: gunicorn copies all that is left of it for each portion that is taken."""
_UNANNOUNCED = 65_536
"""Of one that may go on for ever."""

_MAX_MODEL_CHARS = 256
_OURS = frozenset({"model", "messages", "stream"})
_NEVER_FORWARDED = frozenset({"api_base", "base_url", "api_key"})
"""Other gateways take a backend's address and key from the body; that would be a way to have requests sent anywhere."""

_NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_POSITIVE_INTEGERS = ("max_tokens", "max_completion_tokens", "n")


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the edge knows of a request besides its body."""

    arrived_at: float
    timestamp: datetime
    request_id: str
    session_id: str
    headers: Iterable[tuple[str, str]]
    date_context: str
    client: str = ""
    organization: str = ""
    trace: Trace | None = None
    key: VirtualKey | None = None
    deployment: str = ""
    """The model that the address names (Azure's clients); it goes before that of the body."""
    policy: str | None = None
    """The header x-router-policy; None: there is none."""
    finder: PrivateText | None = None
    """Finds what may not leave the local network."""
    explain: str | None = None
    """The header x-router-explain; None: there is none."""
    quality: str | None = None
    """The header x-router-quality; None: there is none."""


class Ids:
    """Makes ids. Seeded from the system once: asking it anew for each request was measured at 0.2 ms."""

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(32))  # noqa: S311 - ids are names, not secrets

    def request_id(self, header: str | None) -> str:
        """The client's own id if it is one, else a new one."""
        return header if header and _REQUEST_ID.fullmatch(header) else f"req_{self._random.getrandbits(128):032x}"

    def session_id(self) -> str:
        """Twelve hexadecimal digits."""
        return f"{self._random.getrandbits(48):012x}"


def read_body(environ: Mapping[str, Any], limit: int) -> bytes:
    """The whole body, at most ``limit`` bytes. How long that may take is the server's to say.

    Raises BodyTooLarge, InvalidRequest for one that ends early, UnknownEncoding, ClientGone if the client has left.
    """
    announced = _content_length(environ)
    if announced is not None and announced > limit:
        raise _too_large(limit)
    try:
        body = _read(environ["wsgi.input"], limit, _UNANNOUNCED if announced is None else _PORTION)
    except ConnectionError as problem:
        raise ClientGone from problem
    except OSError as problem:
        raise InvalidRequest(f"the request body could not be read: {problem}", "body") from problem
    if announced is not None and len(body) < announced:
        raise InvalidRequest(f"the request body has {len(body)} bytes, Content-Length says {announced}", "body")
    encoding = environ.get("HTTP_CONTENT_ENCODING")
    return unpacked(body, encoding, limit) if encoding else body


def _content_length(environ: Mapping[str, Any]) -> int | None:
    value = environ.get("CONTENT_LENGTH") or ""
    return int(value) if value.isdigit() else None


def _read(stream: Any, limit: int, at_once: int) -> bytes:
    portions, size = [], 0
    while portion := stream.read(at_once):
        size += len(portion)
        if size > limit:
            raise _too_large(limit)
        portions.append(portion)
    return portions[0] if len(portions) == 1 else b"".join(portions)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit} bytes (MAX_BODY_MB)")


def check_values(body: bytes, limit: int) -> None:
    """Raises BodyTooLarge for JSON of more than ``limit`` values: each of them becomes an object of fifty bytes and
    more, so that 30 MB of ``[]`` would be 1.7 GB, and seconds in which nobody else is answered."""
    # In front of each value stands a comma or an opening bracket, perhaps with a name in between.
    if len(body) <= limit or sum(map(body.count, _BEFORE_VALUES)) < limit:
        return
    if _outside_texts(body) >= limit:
        raise BodyTooLarge(f"the request body has more than {limit} JSON values (MAX_BODY_VALUES)")


def _outside_texts(body: bytes) -> int:
    """How many of _BEFORE_VALUES there are outside of JSON's texts. numpy lets other threads run meanwhile."""
    plain = np.frombuffer(body.replace(rb"\\", b"  ").replace(rb"\"", b"  ") if b"\\" in body else body, np.uint8)
    in_text = np.cumsum(plain == ord('"'), dtype=np.uint8) & 1
    return sum(int(np.count_nonzero((plain == ord(mark)) & (in_text == 0))) for mark in _BEFORE_VALUES)


def parse_chat_request(body: bytes, arrival: Arrival) -> ChatRequest:
    """The request. Raises InvalidRequest naming the field that is wrong."""
    payload = object_in(body)
    messages = _messages(payload)
    stream = _typed(payload, "stream", bool, "a boolean") or False
    options = _typed(payload, "stream_options", dict, "an object") or {}
    serialised("stream_options", options)
    _check_numbers(payload)
    _typed(payload, "tools", list, "an array")
    if arrival.key is not None:
        check_fields(payload, arrival.key)
    return ChatRequest(
        request_id=arrival.request_id,
        session_id=arrival.session_id,
        timestamp=arrival.timestamp,
        arrived_at=arrival.arrived_at,
        model=arrival.deployment or model_of(payload),
        stream=stream,
        messages=messages,
        messages_json=serialised("messages", messages),
        params=_params(payload),
        date_context=arrival.date_context,
        total_chars=sum(len(text_of(message)) for message in messages),
        task=job_in_headers(arrival.headers),
        wants_usage=options.get("include_usage") is True,
        client=arrival.client,
        organization=organization_of(arrival),
        key=arrival.key,
        trace=arrival.trace,
        local_only=_local_only(payload, arrival),
        quality=_quality(payload, arrival),
        explains=arrival.explain is not None and explains(arrival.explain),
    )


def _local_only(payload: Mapping[str, Any], arrival: Arrival) -> str:
    """Why it is local-only, which few requests are; empty: it is not. Raises InvalidRequest."""
    asks = arrival.policy is not None or "metadata" in payload
    if asks or arrival.key is not None or arrival.finder is not None:
        return why_local_only(arrival, payload)
    return ""


def _quality(payload: Mapping[str, Any], arrival: Arrival) -> int | None:
    """The quality that is wanted of it, of which few requests speak. Raises InvalidRequest."""
    if arrival.quality is None and arrival.key is None and "metadata" not in payload:
        return None
    return wanted_quality(arrival, payload)


def explains(header: str | None) -> bool:
    """Whether the header x-router-explain asks for what was decided in the answer. Raises InvalidRequest."""
    if header is not None and header.strip().lower() != "body":
        raise InvalidRequest("'x-router-explain' must be body", "x-router-explain")
    return header is not None


def object_in(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises InvalidRequest."""
    try:
        payload = orjson.loads(body)
        if _LONG_NUMBER.search(body):
            # orjson has made floats of whole numbers beyond 64 bits. It has checked that this is strict JSON.
            payload = json.loads(body)
    except orjson.JSONDecodeError as problem:
        if problem.msg.startswith("Not enough memory"):
            raise MemoryError(problem.msg) from None
        raise InvalidRequest(f"the request body is not valid JSON: {problem}", "body", code="invalid_json") from None
    if not isinstance(payload, dict):
        raise InvalidRequest("the request body must be a JSON object", "body", code="invalid_type")
    return payload


def model_of(payload: Mapping[str, Any]) -> str:
    """The model that is asked for. Raises InvalidRequest."""
    model: str = _typed(payload, "model", str, "a string") or AUTO
    if len(model) > _MAX_MODEL_CHARS:
        # It stands in the log, in session files and in rows of usage.
        raise InvalidRequest(f"'model' may have {_MAX_MODEL_CHARS} characters at most", "model")
    return model


def _messages(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = payload.get("messages")
    if messages is None:
        raise InvalidRequest("'messages' is required", "messages", code="missing_required_parameter")
    if not isinstance(messages, list):
        raise InvalidRequest("'messages' must be an array", "messages", code="invalid_type")
    if not messages:
        raise InvalidRequest("'messages' must hold at least one message", "messages", code="empty_array")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    return messages


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise InvalidRequest(f"'{where}' must be an object", where, code="invalid_type")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InvalidRequest(f"'{where}.role' must be a string", f"{where}.role", code="invalid_type")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise InvalidRequest(
            f"'{where}.content' must be a string, an array or null", f"{where}.content", code="invalid_type"
        )
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            at = f"{where}.content[{index}]"
            raise InvalidRequest(f"'{at}' must be an object", at, code="invalid_type")


def _params(payload: Mapping[str, Any]) -> dict[str, Any]:
    """All other fields."""
    return as_fragments({name: value for name, value in payload.items() if name not in _OURS})


def as_fragments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, the composite ones serialised, which is done once here for however many backends are asked; without
    those that no backend is sent. Raises InvalidRequest."""
    return {
        name: orjson.Fragment(serialised(name, value))
        if (isinstance(value, (dict, list)) and name != "stream_options") or _is_long(value)
        else value
        for name, value in (_without_our_metadata(fields) if "metadata" in fields else fields).items()
        if name not in _NEVER_FORWARDED
    }


def _without_our_metadata(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields, in whose ``metadata`` is nothing that is meant for the router."""
    metadata = fields["metadata"]
    if not isinstance(metadata, Mapping) or len(others := without_own_fields(metadata)) == len(metadata):
        return fields
    rest = {name: value for name, value in fields.items() if name != "metadata"}
    return {**rest, "metadata": others} if others else rest


def organization_of(arrival: Arrival) -> str:
    """The org that the key is bound to; else what the client says about itself, if that may be kept."""
    if arrival.key is not None and arrival.key.organization:
        return arrival.key.organization
    return arrival.organization if _ORGANIZATION.fullmatch(arrival.organization) else ""


def serialised(name: str, value: Any) -> bytes:
    """A field as JSON. Raises InvalidRequest."""
    try:
        return SessionLogger.set_query(value) if name == "messages" else orjson.dumps(value)
    except orjson.JSONEncodeError as problem:
        if "Integer exceeds" in str(problem):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        raise InvalidRequest(f"'{name}' is nested too deeply (254 levels at most)", name) from None


def _is_long(value: Any) -> bool:
    """Whether the value is a whole number that orjson does not write."""
    return isinstance(value, int) and not -(1 << 63) <= value < 1 << 64


def _typed(payload: Mapping[str, Any], name: str, kind: type, called: str) -> Any:
    value = payload.get(name)
    if value is not None and not isinstance(value, kind):
        raise InvalidRequest(f"'{name}' must be {called}", name, code="invalid_type")
    return value


def _check_numbers(payload: Mapping[str, Any]) -> None:
    for name in _NUMBERS:
        value = payload.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InvalidRequest(f"'{name}' must be a number", name, code="invalid_type")
    for name in _POSITIVE_INTEGERS:
        value = payload.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidRequest(f"'{name}' must be an integer", name, code="invalid_type")
        if value < 1:
            raise InvalidRequest(f"'{name}' must be at least 1", name)
