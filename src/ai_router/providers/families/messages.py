"""Anthropic's Messages API, which vLLM and llama.cpp have, too.

Shapes: anthropic 0.120 (types), platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import Payload
from ai_router.providers import message_blocks as blocks
from ai_router.providers.chat_completions import appended, with_context
from ai_router.providers.families import ClientBodyParts, RequestParts

_DEFAULT_MAX_TOKENS = 32_000
"""Anthropic wants a limit, which clients of chat completions often leave out."""
_TRANSLATED = (
    *("max_tokens", "max_completion_tokens", "parallel_tool_calls", "reasoning_effort", "response_format", "stop"),
    *("stream_options", "tool_choice", "tools", "user"),
)
_COPIED = ("temperature", "top_p", "top_k", "service_tier")
_SYSTEM_ROLES = ("system", "developer")


class Messages:
    """Translates the messages of a request into turns of blocks, and the blocks of an answer into a completion."""

    name = "messages"
    path = "/messages"
    fields = frozenset((*_TRANSLATED, *_COPIED))

    def body(self, parts: RequestParts) -> bytes:
        """The body. Fields that this API does not have are left out."""
        messages, params = parts.parsed()
        limit = params.get("max_completion_tokens") or params.get("max_tokens") or _DEFAULT_MAX_TOKENS
        body: dict[str, Any] = {parts.send_as: parts.model, "max_tokens": limit}
        body |= {name: params[name] for name in _COPIED if params.get(name) is not None}
        if stop := params.get("stop"):
            body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if user := params.get("user"):
            body["metadata"] = {"user_id": user}
        body |= blocks.tool_fields(params) | blocks.output_fields(params)
        if parts.stream:
            body["stream"] = True
        system = [blocks.text_in(m.get("content")) for m in messages if m.get("role") in _SYSTEM_ROLES]
        if any(system):
            body["system"] = "\n\n".join(text for text in system if text)
        body["messages"] = blocks.turns([m for m in messages if m.get("role") not in _SYSTEM_ROLES])
        return orjson.dumps(body)

    def body_from_client(self, parts: ClientBodyParts) -> bytes:
        """The body of a client that speaks this API."""
        body: dict[str, Any] = {parts.send_as: parts.model, **parts.fields}
        if parts.stream:
            body["stream"] = True
        if date := parts.additions.date:
            # Behind the client's own, so that what it has cached before stays the same for an hour.
            body["system"] = appended(orjson.loads(orjson.dumps(body.get("system"))), date)
        context = parts.additions.context
        if context or parts.left_out:
            turns = [
                blocks.without_thoughts(turn, parts.left_out) for turn in orjson.loads(orjson.dumps(body["messages"]))
            ]
            body["messages"] = with_context(turns, context) if context else turns
        return orjson.dumps(body)

    def completion(self, payload: Payload) -> Payload:
        """The completion. Raises ValueError for something else than a message."""
        content = payload.get("content")
        if not isinstance(content, list):
            raise ValueError("the answer is not a message")  # noqa: TRY004 - as of any other shape
        calls = [blocks.tool_call(block) for block in content if block.get("type") == "tool_use"]
        message: dict[str, Any] = {"role": "assistant", "content": blocks.joined(content, "text") or None}
        message |= {"reasoning": thought} if (thought := blocks.joined(content, "thinking")) else {}
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": 0, "message": message, "finish_reason": blocks.finish_reason(payload.get("stop_reason"))}
        usage = blocks.chat_usage(payload.get("usage") or {})
        return {**_header(payload, "chat.completion"), "choices": [choice], "usage": usage}

    def translation(self) -> MessagesStream:
        """A new translation for one stream."""
        return MessagesStream()


class MessagesStream:
    """Translates the events of one stream into chunks of chat completions."""

    ends_with_done = False

    def __init__(self) -> None:
        self.ended = False
        self._message: Payload = {}
        self._usage: dict[str, Any] = {}
        self._role_sent = False
        self._calls: dict[Any, int] = {}
        self._finish_reason: str | None = None

    def feed(self, payload: Payload) -> Sequence[Payload]:
        """The chunks for one event; none for an event that chat completions do not have."""
        kind = payload.get("type")
        if kind == "error":
            error = payload.get("error")
            return [{"error": error if isinstance(error, Mapping) else {"message": "the answer failed"}}]
        if kind == "message_start":
            self._message = payload["message"]
            self._usage |= self._message.get("usage") or {}
        elif kind == "content_block_start":
            return self._block_start(payload.get("index"), payload["content_block"])
        elif kind == "content_block_delta":
            return self._delta(payload.get("index"), payload["delta"])
        elif kind == "message_delta":
            self._usage |= {name: value for name, value in (payload.get("usage") or {}).items() if value is not None}
            self._finish_reason = blocks.finish_reason((payload.get("delta") or {}).get("stop_reason"))
        elif kind == "message_stop":
            self.ended = True
            return [self._chunk({}, self._finish_reason or "stop"), self._usage_chunk()]
        return ()

    def _block_start(self, index: Any, block: Payload) -> Sequence[Payload]:
        if block.get("type") == "tool_use":
            number = self._calls.setdefault(index, len(self._calls))
            function = {"name": block.get("name"), "arguments": ""}
            call = {"index": number, "id": block.get("id"), "type": "function", "function": function}
            return [self._chunk({"tool_calls": [call]})]
        text = block.get("text")
        return [self._chunk({"content": text})] if block.get("type") == "text" and text else ()

    def _delta(self, index: Any, delta: Payload) -> Sequence[Payload]:
        kind = delta.get("type")
        if kind == "text_delta":
            return [self._chunk({"content": delta.get("text")})]
        if kind == "thinking_delta":
            return [self._chunk({"reasoning": delta.get("thinking")})]
        if kind == "input_json_delta" and index in self._calls:
            call = {"index": self._calls[index], "function": {"arguments": delta.get("partial_json")}}
            return [self._chunk({"tool_calls": [call]})]
        return ()

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Payload:
        role = {} if self._role_sent else {"role": "assistant"}
        self._role_sent = True
        choice = {"index": 0, "delta": {**role, **delta}, "finish_reason": finish_reason}
        return {**_header(self._message, "chat.completion.chunk"), "choices": [choice]}

    def _usage_chunk(self) -> Payload:
        header = _header(self._message, "chat.completion.chunk")
        return {**header, "choices": [], "usage": blocks.chat_usage(self._usage)}


def _header(message: Payload, kind: str) -> dict[str, Any]:
    return {"id": message.get("id"), "object": kind, "created": int(time.time()), "model": message.get("model")}


FAMILY = Messages()
