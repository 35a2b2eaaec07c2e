"""The old completions API: a text goes on. vLLM, llama.cpp and Ollama have it; editors complete code with it.

It is only passed on: a conversation is no text. Shapes: openai 3.57.0 (types/completion.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import Payload
from ai_router.providers.families import ClientBodyParts, RequestParts


class Completions:
    """Passes bodies on, and reads answers."""

    name = "completions"
    path = "/completions"
    fields = None

    def body(self, parts: RequestParts) -> bytes:  # noqa: ARG002 - whatever they are
        """Raises ValueError."""
        raise ValueError("a conversation has no place in this API")

    def body_from_client(self, parts: ClientBodyParts) -> bytes:
        """The body of a client that speaks this API. A text gets no date; the web's context stands before it."""
        body: dict[str, Any] = {parts.send_as: parts.model, **parts.fields}
        if parts.stream:
            body["stream"] = True
            body["stream_options"] = {**(parts.fields.get("stream_options") or {}), "include_usage": True}
        if parts.additions.context and isinstance(body["prompt"], str):
            body["prompt"] = f"{parts.additions.context}\n\n{body['prompt']}"
        return orjson.dumps(body)

    def completion(self, payload: Payload) -> Payload:
        """The ``chat.completion`` for a text. Raises ValueError for something else."""
        choices = payload.get("choices")
        if not isinstance(choices, list):
            raise ValueError("the answer is not a completion")  # noqa: TRY004 - as of any other shape
        return {**payload, "object": "chat.completion", "choices": [_whole(choice) for choice in choices]}

    def translation(self) -> CompletionsStream:
        """A new translation for one stream."""
        return CompletionsStream()


class CompletionsStream:
    """Translates the events of one stream into chunks of chat completions."""

    ended = False
    ends_with_done = True

    def feed(self, payload: Payload) -> Sequence[Payload]:
        choices = payload.get("choices")
        if not isinstance(choices, list):
            return [payload]
        return [{**payload, "object": "chat.completion.chunk", "choices": [_part(choice) for choice in choices]}]


def _whole(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.get("text")}
    return {"index": choice.get("index"), "message": message, "finish_reason": choice.get("finish_reason")}


def _part(choice: Mapping[str, Any]) -> dict[str, Any]:
    delta = {"content": choice.get("text")}
    return {"index": choice.get("index"), "delta": delta, "finish_reason": choice.get("finish_reason")}


FAMILY = Completions()
