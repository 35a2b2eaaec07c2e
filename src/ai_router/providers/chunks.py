"""A whole chat completion as one chunk, so that whole answers are written by what writes streamed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.apis import Payload


def chunk_of(completion: Payload) -> Payload:
    """The ``chat.completion.chunk`` with everything that a ``chat.completion`` has."""
    choices = [chunk_choice(choice) for choice in completion["choices"] if isinstance(choice, Mapping)]
    return {**completion, "object": "chat.completion.chunk", "choices": choices}


def chunk_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A choice of a completion as that of a chunk. A message's calls of tools have no index, a chunk's have."""
    message = choice.get("message")
    delta = dict(message) if isinstance(message, Mapping) else {"content": choice.get("text")}
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [
            {"index": number, **call} if isinstance(call, Mapping) else call for number, call in enumerate(calls)
        ]
    rest = {name: value for name, value in choice.items() if name not in ("message", "text")}
    return {**rest, "delta": delta, "finish_reason": choice.get("finish_reason") or "stop"}
