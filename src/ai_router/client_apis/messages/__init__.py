"""Anthropic's Messages API, for clients: Claude Code, and whatever uses Anthropic's libraries.

Source: platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ai_router.apis import ClientForm, Payload, ReadRequest
from ai_router.client_apis.messages.reading import read_request, signatures_in
from ai_router.client_apis.messages.writing import MessageWriter, error_object
from ai_router.client_apis.reading import typed
from ai_router.errors import RouterError
from ai_router.providers.chunks import chunk_of


class Messages:
    """POST /v1/messages."""

    name = "messages"
    path = "/v1/messages"
    error_paths: Sequence[str] = ("/v1/messages/count_tokens",)
    family: str | None = "messages"
    token_limits: Sequence[str] = ("max_tokens",)
    media_type = "text/event-stream"
    client_headers: Sequence[str] = ("anthropic-beta",)
    """Fields of the body may need it."""

    def read(self, payload: dict[str, Any]) -> ReadRequest:
        return read_request(payload)

    def streams(self, payload: Payload) -> bool:
        return bool(typed(payload, "stream", bool, "a boolean"))

    def thoughts_in(self, answer: Payload) -> Sequence[str]:
        return signatures_in([{"content": answer.get("content")}])

    def keeps_form(self, payload: Payload) -> bool:  # noqa: ARG002 - all known servers keep it
        return True

    def answer(self, completion: Payload, form: ClientForm) -> Payload:
        writer = MessageWriter(form)
        writer.chunk(chunk_of(completion))
        writer.end()
        return writer.whole or {}

    def writer(self, form: ClientForm) -> MessageWriter:
        return MessageWriter(form)

    def error_body(self, error: RouterError, request_id: str) -> bytes:
        return orjson.dumps(error_object(error, request_id))


API = Messages()
