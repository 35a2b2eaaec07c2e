"""Ollama's /api/chat, for clients: many programs of home labs speak nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import ClientForm, ReadRequest
from ai_router.client_apis import ollama
from ai_router.client_apis.calls import CallPart, CallsInOrder
from ai_router.client_apis.reading import as_json, joined_turns, objects, typed
from ai_router.errors import InvalidRequest

_ROLES = ("system", "user", "assistant", "tool")


class OllamaChat(ollama.OllamaApi):
    """POST /api/chat."""

    name = "ollama_chat"
    path = "/api/chat"
    error_paths: Sequence[str] = ("/api/tags", "/api/show", "/api/ps", "/api/version", "/api/embed", "/api/embeddings")

    def read(self, payload: dict[str, Any]) -> ReadRequest:
        turns: list[dict[str, Any]] = []
        for at, message in objects(payload.get("messages") or [], "messages"):
            turns.append(_turn(message, at, turns))
        if not turns:
            raise InvalidRequest("'messages' must have at least one message", "messages")
        params = ollama.params_of(payload)
        if tools := typed(payload, "tools", list, "an array"):
            params["tools"] = tools
        return ReadRequest(joined_turns(turns), params, client_fields={}, model=ollama.model_in(payload))

    def writer(self, form: ClientForm) -> ChatWriter:
        return ChatWriter(form)


class ChatWriter(ollama.LineWriter):
    """A line has a message with a part of the answer. A call of a tool is sent when it is whole."""

    def __init__(self, form: ClientForm) -> None:
        super().__init__(form)
        self._calls: dict[int, CallPart] = {}
        self._in_order = CallsInOrder()
        self._texts: dict[str, list[str]] = {"content": [], "thinking": []}

    def delta(self, delta: Mapping[str, Any]) -> dict[str, Any] | None:
        for call in delta.get("tool_calls") or ():
            for part in self._in_order.feed(call):
                self._add(part)
        thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
        texts = {"content": delta.get("content") or "", "thinking": thought}
        if not any(texts.values()):
            return None
        for name, text in texts.items():
            self._texts[name].append(text)
        return {"message": {"role": "assistant", **_told(texts)}}

    def last(self) -> dict[str, Any]:
        for part in self._in_order.rest():
            self._add(part)
        calls = [
            {"function": {"name": call.name, "arguments": arguments}}
            for call in self._calls.values()
            # What was cut in the middle must not be run.
            if (arguments := _arguments(call.arguments)) is not None
        ]
        return {"message": {"role": "assistant", "content": "", **({"tool_calls": calls} if calls else {})}}

    def end(self) -> bytes:
        line = super().end()
        whole = orjson.loads(line)
        texts = _told({name: "".join(parts) for name, parts in self._texts.items()})
        self.whole = {**whole, "message": {**whole["message"], **texts}}
        return line

    def _add(self, part: CallPart) -> None:
        before = self._calls.get(part.number, CallPart(part.number, "", "", ""))
        self._calls[part.number] = before._replace(
            name=before.name or part.name, arguments=before.arguments + part.arguments
        )


def _told(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text or name == "content"}


def _turn(message: Mapping[str, Any], at: str, earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"'{at}.role' must be one of {', '.join(_ROLES)}", f"{at}.role")
    text = typed(message, "content", str, "a string", at) or ""
    if role == "tool":
        # The call has no id here: the result belongs to the first one of that name which has none yet.
        return {"role": "tool", "tool_call_id": _open_call(earlier, message.get("tool_name")), "content": text}
    turn: dict[str, Any] = {"role": role, "content": ollama.with_pictures(text, message.get("images"), f"{at}.images")}
    if calls := message.get("tool_calls"):
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = [
            _call(call, where, f"call_{len(earlier)}_{number}")
            for number, (where, call) in enumerate(objects(calls, f"{at}.tool_calls"))
        ]
    return turn


def _call(call: Mapping[str, Any], at: str, call_id: str) -> dict[str, Any]:
    function = typed(call, "function", dict, "an object", at) or {}
    arguments = as_json(function.get("arguments") or {})
    return {"id": call_id, "type": "function", "function": {"name": function.get("name"), "arguments": arguments}}


def _open_call(earlier: Sequence[Mapping[str, Any]], name: Any) -> str:
    answered = {turn.get("tool_call_id") for turn in earlier}
    calls = [call for turn in earlier for call in turn.get("tool_calls") or () if call["id"] not in answered]
    named = [call for call in calls if call["function"]["name"] == name] or calls
    return named[0]["id"] if named else "call_0"


def _arguments(text: str) -> Any:
    """The arguments of a call; None where they are not whole."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return None


API = OllamaChat()
