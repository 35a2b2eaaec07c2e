"""The Responses API of OpenAI, for clients. Codex speaks nothing else, and OpenAI's newer libraries prefer it.

Source: openai 3.57.0 (types/responses), platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_router.apis import ClientForm, Payload, ReadRequest
from ai_router.client_apis.reading import typed
from ai_router.client_apis.responses.reading import read_request, thought_ids
from ai_router.client_apis.responses.writing import ResponseWriter
from ai_router.envelope import envelope_json
from ai_router.errors import RouterError
from ai_router.providers.chunks import chunk_of


class Responses:
    """POST /v1/responses."""

    name = "responses"
    path = "/v1/responses"
    error_paths: Sequence[str] = ()
    family: str | None = "responses"
    token_limits: Sequence[str] = ("max_output_tokens",)
    media_type = "text/event-stream"
    client_headers: Sequence[str] = ()

    def read(self, payload: dict[str, Any]) -> ReadRequest:
        return read_request(payload)

    def streams(self, payload: Payload) -> bool:
        return bool(typed(payload, "stream", bool, "a boolean"))

    def thoughts_in(self, answer: Payload) -> Sequence[str]:
        return thought_ids(answer.get("output"))

    def keeps_form(self, payload: Payload) -> bool:
        # llama.cpp's events are not numbered, and its answers repeat nothing of the request: OpenAI's libraries fail.
        return ("sequence_number" if "type" in payload else "parallel_tool_calls") in payload

    def answer(self, completion: Payload, form: ClientForm) -> Payload:
        writer = ResponseWriter(form)
        writer.chunk(chunk_of(completion))
        writer.end()
        return writer.whole or {}

    def writer(self, form: ClientForm) -> ResponseWriter:
        return ResponseWriter(form)

    def error_body(self, error: RouterError, request_id: str) -> bytes:  # noqa: ARG002 - it is in a header
        return envelope_json(error)


API = Responses()
