"""Answers in the form of the Responses API, from chunks of chat completions.

The events and their order: openai 3.57.0 (types/responses), platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ai_router.apis import ClientForm, Payload
from ai_router.client_apis.calls import CallPart, CallsInOrder
from ai_router.client_apis.responses.reading import CUSTOM_INPUT
from ai_router.envelope import envelope
from ai_router.errors import RouterError

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}
"""Fields of the request that an answer repeats, and their defaults."""
_TOO_MANY_REQUESTS = 429
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Item:
    """An item of the output that is being written: its texts are joined when it is done."""

    def __init__(self, index: int, fields: dict[str, Any], part: str | None = None) -> None:
        self.index = index
        self.fields = fields
        self.part = part
        """The type of its one part; None: a call, which has none."""
        self.texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def part_object(self, text: str) -> dict[str, Any]:
        if self.part == "refusal":
            return {"type": "refusal", "refusal": text}
        more: dict[str, Any] = {"annotations": []} if self.part == "output_text" else {}
        return {"type": self.part, "text": text, **more}


CITATIONS = "citations"
"""In ClientForm.kept: the pages that the router's own web search has found."""


class ResponseWriter:
    """Writes one answer as typed events, numbered from 0."""

    def __init__(self, form: ClientForm) -> None:
        self.whole: Payload | None = None
        self._form = form
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._in_order = CallsInOrder()
        self._held: list[tuple[str, str, str, str]] = []
        self._finish_reason: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._annotations = [_citation(url) for url in form.kept.get(CITATIONS, ())]
        self._begun = False
        self._id = f"resp_{secrets.token_hex(16)}"
        self._created_at = int(time.time())
        self._model: str | None = None

    def chunk(self, chunk: Payload) -> bytes:
        events = b""
        self._model = self._model or chunk.get("model")
        if not self._begun:
            self._begun = True
            began = self._response("in_progress")
            events += self._event("response.created", response=began) + self._event(
                "response.in_progress", response=began
            )
        if isinstance(usage := chunk.get("usage"), Mapping):
            self._usage = usage
        for url in chunk.get("citations") or ():
            self._annotations.append(_citation(url))
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                events += self._delta(choice.get("delta") or {})
        return events

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        events = b""
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        if isinstance(thought, str) and thought:
            events += self._text("reasoning", "reasoning_text", "response.reasoning_text.delta", thought)
        if isinstance(text := delta.get("content"), str) and text:
            events += self._text("message", "output_text", "response.output_text.delta", text)
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            events += self._text("message", "refusal", "response.refusal.delta", refusal)
        for call in delta.get("tool_calls") or ():
            events += b"".join(self._call(part) for part in self._in_order.feed(call))
        return events if self._in_order.is_open else events + self._held_back()

    def _held_back(self) -> bytes:
        held, self._held = self._held, []
        return b"".join(self._text(*text) for text in held)

    def _text(self, kind: str, part: str, event: str, text: str) -> bytes:
        if self._in_order.is_open:
            # An item ends before the next one begins: this text waits for the end of the call.
            self._held.append((kind, part, event, text))
            return b""
        events = b""
        if self._open is None or (self._open.fields["type"], self._open.part) != (kind, part):
            events += self._close()
            fields: dict[str, Any] = {"id": _id("rs" if kind == "reasoning" else "msg"), "type": kind}
            if kind == "reasoning":
                fields |= {"summary": [], "content": [], "status": "in_progress"}
            else:
                fields |= {"role": "assistant", "status": "in_progress", "content": []}
            item = self._open = _Item(len(self._items), fields, part)
            events += self._event("response.output_item.added", output_index=item.index, item=fields)
            events += self._event("response.content_part.added", **self._place(item), part=item.part_object(""))
        self._open.texts.append(text)
        more: dict[str, Any] = {"logprobs": []} if part == "output_text" else {}
        return events + self._event(event, **self._place(self._open), delta=text, **more)

    def _call(self, part: CallPart) -> bytes:
        events = b""
        item = self._calls.get(part.number)
        if item is None:
            events += self._close()
            is_custom = part.name in self._form.kept.get("custom_tools", ())
            namespace, name = self._form.kept.get("namespaces", {}).get(part.name, (None, part.name))
            fields = {
                "id": _id("ctc" if is_custom else "fc"),
                "type": "custom_tool_call" if is_custom else "function_call",
                "call_id": part.call_id or _id("call"),
                "name": name,
                **({"namespace": namespace} if namespace else {}),
                **({"input": ""} if is_custom else {"arguments": "", "status": "in_progress"}),
            }
            item = self._open = self._calls[part.number] = _Item(len(self._items), fields)
            events += self._event("response.output_item.added", output_index=item.index, item=fields)
        if part.arguments:
            item.texts.append(part.arguments)
            if item.fields["type"] == "function_call":
                place = {"item_id": item.fields["id"], "output_index": item.index}
                events += self._event("response.function_call_arguments.delta", **place, delta=part.arguments)
        return events

    def _close(self, *, is_cut: bool = False) -> bytes:
        """The events that end the item that is open. ``is_cut``: the model was stopped in the middle of it."""
        item, self._open = self._open, None
        if item is None:
            return b""
        text, fields = item.text, item.fields
        place = {"item_id": fields["id"], "output_index": item.index}
        if item.part is not None:
            part = item.part_object(text)
            if item.part == "output_text":
                part["annotations"] = self._annotations
            more: dict[str, Any] = {"logprobs": []} if item.part == "output_text" else {}
            name = "refusal" if item.part == "refusal" else "text"
            events = self._event(f"response.{item.part}.done", **self._place(item), **{name: text}, **more)
            events += self._event("response.content_part.done", **self._place(item), part=part)
            done = {**fields, "status": "completed", "content": [part]}
        elif fields["type"] == "custom_tool_call":
            written = _custom_input(text)
            events = self._event("response.custom_tool_call_input.delta", **place, delta=written)
            events += self._event("response.custom_tool_call_input.done", **place, input=written)
            done = {**fields, "input": written}
        else:
            events = self._event(
                "response.function_call_arguments.done", **place, name=fields["name"], arguments=text or "{}"
            )
            done = {**fields, "status": "incomplete" if is_cut else "completed", "arguments": text or "{}"}
        self._items.append(done)
        return events + self._event("response.output_item.done", output_index=item.index, item=done)

    def end(self) -> bytes:
        events = b"".join(self._call(part) for part in self._in_order.rest())
        is_cut = self._in_order.is_open and self._finish_reason in _INCOMPLETE
        self._in_order.close()
        events += self._close(is_cut=is_cut) + self._held_back() + self._close()
        why = _INCOMPLETE.get(self._finish_reason or "")
        self.whole = self._response("incomplete" if why else "completed", why)
        return events + self._event(f"response.{self.whole['status']}", response=self.whole)

    def passed_on(self, event: Payload) -> bool:
        number, response = event.get("sequence_number"), event.get("response")
        self._number = number + 1 if isinstance(number, int) else self._number + 1
        if not isinstance(response, Mapping):
            return True
        self._begun, self._id = True, response.get("id") or self._id
        self._model = response.get("model") or self._model
        if event.get("type") in ("response.completed", "response.incomplete"):
            self.whole = response
        return True

    def error(self, error: RouterError) -> bytes:
        details = envelope(error)["error"]
        told = {name: details[name] for name in ("message", "param")} | {"code": error.code or error.type}
        event = self._event("error", **told)
        if not self._begun:
            return event
        # A response knows a few codes only.
        code = "rate_limit_exceeded" if error.status == _TOO_MANY_REQUESTS else "server_error"
        failed = self._response("failed") | {"error": {"code": code, "message": told["message"]}}
        return event + self._event("response.failed", response=failed)

    def comment(self, text: str) -> bytes:
        return f": {' '.join(text.split())}\n\n".encode()

    def _event(self, kind: str, **fields: Any) -> bytes:
        body = orjson.dumps({"type": kind, **fields, "sequence_number": self._number})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"

    def _place(self, item: _Item) -> dict[str, Any]:
        return {"item_id": item.fields["id"], "output_index": item.index, "content_index": 0}

    def _response(self, status: str, why_incomplete: str | None = None) -> dict[str, Any]:
        asked = self._form.fields
        echoed = {name: default if asked.get(name) is None else asked[name] for name, default in _ECHOED.items()}
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": why_incomplete} if why_incomplete else None,
            "model": self._model,
            "output": list(self._items),
            "previous_response_id": self._form.kept.get("previous"),
            "store": self._form.kept.get("store", True),
            **echoed,
            "usage": None if status == "in_progress" else _usage(self._usage),
        }


def _usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    given, made = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": usage.get("total_tokens") or given + made,
    }


def _citation(url: Any) -> dict[str, Any]:
    return {"type": "url_citation", "url": str(url), "title": str(url), "start_index": 0, "end_index": 0}


def _custom_input(arguments: str) -> str:
    """The text for a custom tool, which was asked for as the one parameter of a function."""
    try:
        read = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    return str(read.get(CUSTOM_INPUT, "")) if isinstance(read, Mapping) else arguments


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"
