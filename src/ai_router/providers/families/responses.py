"""The Responses API of OpenAI. Perplexity's agent API is a variant of it (/v1/agent, with the alias /v1/responses).

Shapes: openai 3.54.0 (types/responses), perplexityai 0.46.1, docs.perplexity.ai/docs/agent-api.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson

from ai_router.apis import Payload
from ai_router.providers import response_items as items
from ai_router.providers.families import ClientBodyParts, RequestParts

_END_EVENTS = {"response.completed", "response.incomplete"}
_FAILURE_EVENTS = {"error", "response.failed", "response.cancelled"}
_CALL_DELTAS = {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
_TEXT_DELTAS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}
_TRANSLATED = (
    *("max_tokens", "max_completion_tokens", "reasoning_effort", "response_format", "tools", "tool_choice"),
    "stream_options",
)


class Responses:
    """Translates the messages of a request into input items, and the output items of an answer into a completion.

    ``copied``: fields of chat completions that have the same name and meaning here.
    """

    name = "responses"
    path = "/responses"
    copied: Sequence[str] = ("temperature", "top_p", "metadata", "user", "store", "parallel_tool_calls", "service_tier")

    @property
    def fields(self) -> frozenset[str]:
        return frozenset((*_TRANSLATED, *self.copied))

    def body(self, parts: RequestParts) -> bytes:
        """The body. Fields that this API does not have are left out: it would refuse the request."""
        messages, params = parts.parsed()
        body: dict[str, Any] = {parts.send_as: parts.model}
        body |= {name: params[name] for name in self.copied if params.get(name) is not None}
        if instructions := "\n\n".join(
            items.text_in(m.get("content")) for m in messages if m.get("role") in items.SYSTEM_ROLES
        ):
            body["instructions"] = instructions
        if limit := params.get("max_completion_tokens") or params.get("max_tokens"):
            body["max_output_tokens"] = limit
        if effort := params.get("reasoning_effort"):
            body["reasoning"] = {"effort": effort}
        if isinstance(response_format := params.get("response_format"), dict):
            body |= self.response_format(response_format)
        if tools := params.get("tools"):
            body["tools"] = [items.flattened_tool(tool) for tool in tools]
            if choice := params.get("tool_choice"):
                body["tool_choice"] = items.flattened_tool(choice)
        if parts.stream:
            body["stream"] = True
        turns = [message for message in messages if message.get("role") not in items.SYSTEM_ROLES]
        body["input"] = [item for message in turns for item in items.input_items(message)]
        return orjson.dumps(body)

    def body_from_client(self, parts: ClientBodyParts) -> bytes:
        """The body of a client that speaks this API. No backend is to keep anything: the router does."""
        body: dict[str, Any] = {parts.send_as: parts.model, **parts.fields, "store": False}
        if parts.stream:
            body["stream"] = True
        items.complete(body, parts.additions, parts.left_out, thinks=parts.thinks)
        return orjson.dumps(body)

    def response_format(self, response_format: Payload) -> Payload:
        """The fields of the body for chat completions' ``response_format``."""
        return {"text": {"format": {**response_format.get("json_schema", {}), "type": response_format.get("type")}}}

    def completion(self, payload: Payload) -> Payload:
        """The completion, with the URLs that it cites as ``citations``. Raises ValueError for a failed response."""
        output = payload.get("output")
        if not isinstance(output, list) or payload.get("status") in ("failed", "cancelled"):
            raise ValueError("the answer is not a response, or one that failed")
        calls = [items.tool_call(item) for item in output if item.get("type") in items.CALLS]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(items.output_texts(payload)) or None}
        message |= {"tool_calls": calls} if calls else {}
        message |= {"reasoning": thought} if (thought := items.reasoning_in(payload)) else {}
        message |= {"refusal": refused} if (refused := items.refusal_in(payload)) else {}
        choice = {"index": 0, "message": message, "finish_reason": items.finish_reason(payload, called=bool(calls))}
        usage, citations = items.usage_and_sources(payload)
        return {**_header(payload, "chat.completion"), "choices": [choice], **usage, **citations}

    def translation(self) -> ResponsesStream:
        """A new translation for one stream."""
        return ResponsesStream()


class ResponsesStream:
    """Translates the events of one stream into chunks of chat completions."""

    ends_with_done = False

    def __init__(self) -> None:
        self.ended = False
        self._response: Payload = {}
        self._role_sent = self._text_sent = False
        self._calls: dict[str, int] = {}

    def feed(self, payload: Payload) -> Sequence[Payload]:
        """The chunks for one event; none for an event that chat completions do not have."""
        kind = payload.get("type")
        if isinstance(response := payload.get("response"), dict):
            self._response = response
        if kind in _FAILURE_EVENTS:
            # OpenAI's error is the event itself, or in its ``response``; Perplexity's is the event's ``error``.
            error = payload.get("error") or self._response.get("error") or {"code": None, **payload}
            fields = error if isinstance(error, dict) else {"message": str(error)}
            return [{"error": {"message": "the response failed", **fields}}]
        if kind in _TEXT_DELTAS:
            self._text_sent = self._text_sent or _TEXT_DELTAS[kind] != "reasoning"
            return [self._chunk({_TEXT_DELTAS[kind]: payload.get("delta")})]
        if kind == "response.output_item.added" and (payload.get("item") or {}).get("type") in items.CALLS:
            item = payload["item"]
            index = self._calls.setdefault(items.tool_call_key(payload, item.get("id")), len(self._calls))
            return [self._chunk({"tool_calls": [{"index": index, **items.tool_call(item)}]})]
        if kind in _CALL_DELTAS:
            index = self._calls.get(items.tool_call_key(payload, payload.get("item_id")), 0)
            return [self._chunk({"tool_calls": [{"index": index, "function": {"arguments": payload.get("delta")}}]})]
        return self._end() if kind in _END_EVENTS else ()

    def _end(self) -> Sequence[Payload]:
        self.ended = True
        # Perplexity may send a text only in the last event's response, without any deltas.
        unsent = "" if self._text_sent else "".join(items.output_texts(self._response))
        finish_reason = items.finish_reason(self._response, called=bool(self._calls))
        last = self._chunk({"content": unsent} if unsent else {}, finish_reason)
        usage, citations = items.usage_and_sources(self._response)
        return [{**last, **citations}, {**_header(self._response, "chat.completion.chunk"), "choices": [], **usage}]

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Payload:
        role = {} if self._role_sent else {"role": "assistant"}
        self._role_sent = True
        choice = {"index": 0, "delta": {**role, **delta}, "finish_reason": finish_reason}
        return {**_header(self._response, "chat.completion.chunk"), "choices": [choice]}


def _header(response: Payload, kind: str) -> dict[str, Any]:
    created = int(response.get("created_at") or time.time())
    return {"id": response.get("id"), "object": kind, "created": created, "model": response.get("model")}


FAMILY = Responses()
