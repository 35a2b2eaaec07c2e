"""Chat completions: OpenAI's API, which vLLM, llama.cpp, xAI, Gemini and OpenRouter have, too."""

from __future__ import annotations

from typing import Any

import orjson

from ai_router.providers.families import Payload, RequestParts


class ChatCompletions:
    """The API that clients use themselves: bodies are put together from the client's fields, answers are passed on."""

    path = "/chat/completions"

    def body(self, parts: RequestParts) -> bytes:
        """The body. A stream is always asked for its usage, which the session file and the costs need.

        The relay removes the extra chunk for a client that did not ask for it.
        """
        body: dict[str, Any] = {parts.send_as: parts.model, **parts.params}
        if parts.stream:
            body["stream"] = True
            body["stream_options"] = {**(parts.params.get("stream_options") or {}), "include_usage": True}
        # The messages come last: what is before them stays the same in every request of a conversation.
        body["messages"] = orjson.Fragment(parts.messages_json)
        return orjson.dumps(body)

    def completion(self, _: Payload) -> None:
        """None: every answer is a ``chat.completion`` already."""

    def translation(self) -> None:
        """None: a stream's events are those of chat completions already."""


FAMILY = ChatCompletions()
