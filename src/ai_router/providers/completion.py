"""Reading a chat completion as it passes, whole or in chunks, without changing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXTS = ("content", "reasoning", "reasoning_content", "refusal")


class AnswerReader:
    """Gathers from the chunks of a stream what the session and the metrics want to know.

    Each chunk, parsed by orjson and thus made of dicts and lists, is shown to it once. It appends to lists and
    overwrites scalars; the texts are joined only when the answer is over.
    """

    __slots__ = ("_texts", "_tool_calls", "chunks", "finish_reason", "model", "role", "usage")

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._tool_calls: dict[Any, dict[str, Any]] = {}
        self.role = "assistant"
        self.model: str | None = None
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] | None = None
        self.chunks = 0

    def chunk(self, payload: Mapping[str, Any]) -> None:
        """Take one parsed ``chat.completion.chunk``."""
        self.chunks += 1
        if self.model is None:
            self.model = payload.get("model")
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        choices = payload.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                # With n > 1 the session keeps the first choice; the client gets them all.
                if isinstance(choice, dict) and not choice.get("index"):
                    self._choice(choice)

    def whole(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a parsed ``chat.completion``; returns what the session keeps of it."""
        self.model = payload.get("model")
        usage = payload.get("usage")
        self.usage = usage if isinstance(usage, dict) else None
        choices = payload.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self.finish_reason = first.get("finish_reason")
        message = first.get("message")
        return {**(message if isinstance(message, dict) else {}), "finish_reason": self.finish_reason}

    def gathered(self) -> Mapping[str, Any] | None:
        """The message that the chunks so far amount to; None if there were none."""
        if not self.chunks:
            return None
        message: dict[str, Any] = {"role": self.role, "content": None}
        message.update({name: "".join(parts) for name, parts in self._texts.items()})
        if self._tool_calls:
            message["tool_calls"] = [
                {**call, "function": {name: "".join(parts) for name, parts in call["function"].items()}}
                for call in self._tool_calls.values()
            ]
        return {**message, "finish_reason": self.finish_reason}

    def _choice(self, choice: Mapping[str, Any]) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for name in _TEXTS:
            text = delta.get(name)
            if isinstance(text, str):
                self._texts.setdefault(name, []).append(text)
        if delta.get("tool_calls"):
            self._add_tool_calls(delta["tool_calls"])

    def _add_tool_calls(self, deltas: Any) -> None:
        for delta in deltas if isinstance(deltas, list) else []:
            if not isinstance(delta, Mapping):
                continue
            # Gemini leaves the index out when there is one call a chunk.
            index = delta.get("index")
            key = index if isinstance(index, int) else len(self._tool_calls)
            call = self._tool_calls.setdefault(key, {"id": None, "type": "function", "function": {}})
            call["id"] = delta.get("id") or call["id"]
            function = delta.get("function")
            if isinstance(function, Mapping):
                for name in ("name", "arguments"):
                    if isinstance(function.get(name), str):
                        call["function"].setdefault(name, []).append(function[name])


def estimated_usage(prompt_chars: int, message: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Usage for a stream whose backend did not tell: about four characters a token, flagged as the guess that it is."""
    texts = [value for name, value in (message or {}).items() if isinstance(value, str) and name in _TEXTS]
    prompt, completion = -(-prompt_chars // 4), -(-sum(map(len, texts)) // 4)
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**told, "estimated": True}
