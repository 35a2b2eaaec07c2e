"""A good answer in the other form than was asked for: events where a whole one was due, or a whole one for a stream.

Some servers ignore ``stream``, and some label events as JSON. The answer is paid for: it is converted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from ai_router.dispatch.answer import read_leniently
from ai_router.dispatch.client_form import SHAPE_ERRORS
from ai_router.dispatch.plain_answer import parsed
from ai_router.errors import UpstreamBroken, UpstreamFailed
from ai_router.http.calls import UpstreamRequest
from ai_router.http.sse import Event, SSEDecoder
from ai_router.providers.chat_completions import AnswerReader
from ai_router.providers.chunks import chunk_choice
from ai_router.providers.errors import error_in_body
from ai_router.providers.families import Translation

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EVENT_LINES = (b"data:", b"event:", b"id:", b"retry:", b":")


def looks_like_events(begin: bytes) -> bool:
    """Whether a body that begins like this is made of server-sent events."""
    return begin.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(_EVENT_LINES)


def events_of(completion: Mapping[str, Any]) -> bytes:
    """A whole answer as the events of a stream, with its usage and [DONE]."""
    common = {
        "id": completion.get("id"),
        "object": "chat.completion.chunk",
        "created": completion.get("created"),
        "model": completion.get("model"),
    }
    chunks = [{**common, "choices": [chunk_choice(choice)]} for choice in _choices(completion)]
    if (usage := completion.get("usage")) is not None:
        chunks.append({**common, "choices": [], "usage": usage})
    events = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    return b"".join([*events, b"data: [DONE]\n\n"])


def _choices(completion: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (choice for choice in completion["choices"] if isinstance(choice, Mapping))


def completion_of(body: bytes, translation: Translation | None, upstream_request: UpstreamRequest) -> dict[str, Any]:
    """Events as the whole answer that they amount to. Raises UpstreamError for an error among them, or half of one."""
    decoder, reader = SSEDecoder(), AnswerReader()
    events = decoder.feed(body)
    if (last := decoder.finish()) is not None:
        events.append(last)
    first: Mapping[str, Any] = {}
    done = False
    for chunk in _chunks(events, translation):
        if chunk is None:
            done = True
            continue
        if failure := error_in_body(chunk, upstream_request):
            raise failure
        first = first or chunk
        reader.chunk(chunk)
    if not reader.has_choice:
        raise UpstreamFailed("the answer is empty", upstream_request.source)
    if not (done or reader.finished):
        raise UpstreamBroken("the answer ended before its end", upstream_request.source)
    gathered = dict(reader.gathered() or {})
    finish_reason = gathered.pop("finish_reason", None)
    return {
        "id": first.get("id"),
        "object": "chat.completion",
        "created": first.get("created"),
        "model": reader.model,
        "choices": [{"index": 0, "message": gathered, "finish_reason": finish_reason or "stop"}],
        **({} if reader.usage is None else {"usage": reader.usage}),
    }


def _chunks(events: list[Event], translation: Translation | None) -> Iterator[Mapping[str, Any] | None]:
    """The chunks that the events are, or become; None for the end."""
    for event in events:
        if event.data is None:
            continue
        if event.data.strip() == b"[DONE]":
            yield None
            continue
        payload = parsed(event.data) or read_leniently(event.data)
        if not isinstance(payload, dict):
            continue
        if translation is None:
            yield payload
            continue
        try:
            yield from translation.feed(payload)
        except SHAPE_ERRORS:
            yield {"error": {"message": "an event is of no shape that is known"}}
        if translation.ended:
            yield None


def mended(body: bytes) -> dict[str, Any] | None:
    """JSON that is not strict, for our own notes: halves of a surrogate pair are put together or replaced."""
    payload = read_leniently(body)
    if payload is None:
        return None
    text = json.dumps(payload, ensure_ascii=False).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    found: dict[str, Any] = json.loads(text)
    return found
