"""Chat completions, as OpenAI defined them and vLLM, llama.cpp, xAI, Gemini and OpenRouter speak them."""

from __future__ import annotations

from typing import Any

import orjson

from ai_router.providers.families import Payload, RequestParts


class ChatCompletions:
    """The client's own language: bodies are put together from its parts, answers pass as they are."""

    path = "/chat/completions"

    def body(self, parts: RequestParts) -> bytes:
        """A stream is always asked for its usage, so that the session and the costs know it; the relay takes the extra
        chunk out again for a client that did not ask."""
        body: dict[str, Any] = {parts.send_as: parts.model, **parts.params}
        if parts.stream:
            body["stream"] = True
            body["stream_options"] = {**(parts.params.get("stream_options") or {}), "include_usage": True}
        # The messages come last: what precedes them is the same in every turn of a conversation.
        body["messages"] = orjson.Fragment(parts.messages_json)
        return orjson.dumps(body)

    def completion(self, _: Payload) -> None:
        """It is one."""

    def translation(self) -> None:
        """None is needed."""


FAMILY = ChatCompletions()
