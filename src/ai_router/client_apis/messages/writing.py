"""Answers in the form of Anthropic's Messages API, from chunks of chat completions.

The events and their order: platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from ai_router.apis import ClientForm, Payload
from ai_router.client_apis.calls import CallPart, CallsInOrder
from ai_router.errors import RouterError
from ai_router.providers.message_blocks import STOP_REASONS
from ai_router.token_estimates import estimated_tokens

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_object(error: RouterError, request_id: str | None = None) -> dict[str, Any]:
    """The error envelope of this API."""
    kind = _ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    told = {"type": "error", "error": {"type": kind, "message": str(error)}}
    return told | ({"request_id": request_id} if request_id else {})


class MessageWriter:
    """Writes one answer as events: a message, its blocks one after another, and the bill."""

    def __init__(self, form: ClientForm) -> None:
        self.whole: Payload | None = None
        self._form = form
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model: str | None = None
        self._begun = False
        self._blocks: list[dict[str, Any]] = []
        self._texts: list[str] = []
        """Of the block that is open."""
        self._is_open = False
        self._calls: set[int] = set()
        """The calls that have begun, by their indices."""
        self._in_order = CallsInOrder()
        self._held: list[tuple[str, str]] = []
        self._made_chars = 0
        self._finish_reason: str | None = None
        self._stop_sequence: str | None = None
        self._usage: Mapping[str, Any] | None = None

    def chunk(self, chunk: Payload) -> bytes:
        events = b""
        self._model = self._model or chunk.get("model")
        if isinstance(usage := chunk.get("usage"), Mapping):
            self._usage = usage
        if not self._begun:
            self._begun = True
            began = self._message(None) | {"usage": self._first_usage()}
            events += _event("message_start", message=began)
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                if isinstance(stopped_by := choice.get("stop_reason"), str):
                    # vLLM tells which of the client's words it was.
                    self._stop_sequence = stopped_by
                events += self._delta(choice.get("delta") or {})
        return events

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        events = b""
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        if isinstance(thought, str) and thought:
            events += self._text("thinking", thought)
        for text in (delta.get("content"), delta.get("refusal")):
            if isinstance(text, str) and text:
                events += self._text("text", text)
        for call in delta.get("tool_calls") or ():
            events += b"".join(self._call(part) for part in self._in_order.feed(call))
        return events if self._in_order.is_open else events + self._held_back()

    def _held_back(self) -> bytes:
        held, self._held = self._held, []
        return b"".join(self._text(kind, text) for kind, text in held)

    def _text(self, kind: str, text: str) -> bytes:
        if self._in_order.is_open:
            # A block ends before the next one begins: this text waits for the end of the call.
            self._held.append((kind, text))
            return b""
        events = b""
        if not self._is_open or self._blocks[-1]["type"] != kind:
            # A thought without a signature: the provider's own cannot be made.
            events += self._open({"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {}))
        self._texts.append(text)
        self._made_chars += len(text)
        delta = {"type": f"{kind}_delta", kind: text}
        return events + _event("content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def _call(self, part: CallPart) -> bytes:
        events = b""
        if part.number not in self._calls:
            call_id = part.call_id or f"toolu_{secrets.token_hex(12)}"
            events += self._open({"type": "tool_use", "id": call_id, "name": part.name, "input": {}})
            self._calls.add(part.number)
        if part.arguments:
            self._texts.append(part.arguments)
            self._made_chars += len(part.arguments)
            delta = {"type": "input_json_delta", "partial_json": part.arguments}
            events += _event("content_block_delta", index=len(self._blocks) - 1, delta=delta)
        return events

    def _open(self, block: dict[str, Any]) -> bytes:
        events = self._close()
        self._blocks.append(block)
        self._is_open = True
        return events + _event("content_block_start", index=len(self._blocks) - 1, content_block=block)

    def _close(self) -> bytes:
        if not self._is_open:
            return b""
        index, block, text = len(self._blocks) - 1, self._blocks[-1], "".join(self._texts)
        done = {"input": _parsed(text)} if block["type"] == "tool_use" else {block["type"]: text}
        self._blocks[-1], self._texts, self._is_open = {**block, **done}, [], False
        return _event("content_block_stop", index=index)

    def end(self) -> bytes:
        events = b"".join(self._call(part) for part in self._in_order.rest())
        self._in_order.close()
        events += self._held_back() + self._close()
        stop_reason = STOP_REASONS.get(self._finish_reason or "", "end_turn")
        if self._calls and stop_reason == "end_turn":
            stop_reason = "tool_use"
        if self._stop_sequence is not None and stop_reason == "end_turn":
            stop_reason = "stop_sequence"
        self.whole = self._message(stop_reason) | {"usage": self._bill()}
        delta = {"stop_reason": stop_reason, "stop_sequence": self.whole["stop_sequence"]}
        events += _event("message_delta", delta=delta, usage=self._bill())
        return events + _event("message_stop")

    def passed_on(self, event: Payload) -> bool:
        # The signatures of the thoughts are all that is needed again. A block's comes before its end.
        delta = event.get("delta")
        if isinstance(delta, Mapping) and delta.get("type") == "signature_delta":
            self._texts.append(str(delta.get("signature") or ""))
        elif event.get("type") == "content_block_stop" and self._texts:
            self._blocks.append({"type": "thinking", "signature": "".join(self._texts)})
            self._texts = []
        elif event.get("type") == "message_stop":
            self.whole = {"content": self._blocks}
        return True

    def error(self, error: RouterError) -> bytes:
        return _event(**error_object(error))

    def comment(self, text: str) -> bytes:
        # The words are for people who read the stream; clients know the ping.
        return f": {' '.join(text.split())}\n".encode() + _event("ping")

    def _message(self, stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": list(self._blocks),
            "stop_reason": stop_reason,
            "stop_sequence": self._stop_sequence if stop_reason == "stop_sequence" else None,
        }

    def _first_usage(self) -> dict[str, int]:
        told = self._usage or {}
        return {"input_tokens": told.get("prompt_tokens") or self._form.prompt_tokens, "output_tokens": 0}

    def _bill(self) -> dict[str, int]:
        """What the backend counted, else a rough count."""
        if self._usage is None:
            return {"input_tokens": self._form.prompt_tokens, "output_tokens": estimated_tokens(self._made_chars)}
        details = self._usage.get("prompt_tokens_details") or {}
        cached, written = details.get("cached_tokens") or 0, details.get("cache_creation_tokens") or 0
        return {
            "input_tokens": (self._usage.get("prompt_tokens") or 0) - cached - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": cached,
            "output_tokens": self._usage.get("completion_tokens") or 0,
        }


def _event(type: str, **fields: Any) -> bytes:  # noqa: A002 - its name in the event
    return b"event: " + type.encode() + b"\ndata: " + orjson.dumps({"type": type, **fields}) + b"\n\n"


def _parsed(arguments: str) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}
