"""Requests and answers of chat completions for tests of translations, and how to read what was written of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from hypothesis import strategies as st

from ai_router.apis import ClientApi, ClientForm
from ai_router.http.sse import SSEDecoder
from ai_router.providers.chat_completions import AnswerReader
from ai_router.providers.families import Translation

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
NAME = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAME, st.one_of(TEXT, st.integers(0, 9), st.booleans()), max_size=3)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def client_form(api: ClientApi, payload: dict[str, Any]) -> ClientForm:
    asked = api.read(payload)
    return ClientForm(api, asked.client_fields, kept=asked.kept, prompt_tokens=7)


@st.composite
def tool_calls(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(NAME, min_size=1, max_size=3))
    return [
        {
            "id": f"call_{number}_{draw(st.integers(0, 10**6))}",
            "type": "function",
            "function": {"name": name, "arguments": orjson.dumps(draw(ARGUMENTS)).decode()},
        }
        for number, name in enumerate(names)
    ]


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Conversations as chat templates want them: a system message at most, then turns in their order."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXT)})
    for _ in range(draw(st.integers(1, 3))):
        parts = [{"type": "text", "text": draw(TEXT)}, IMAGE]
        messages.append({"role": "user", "content": parts if draw(st.booleans()) else draw(TEXT)})
        calls = draw(st.one_of(st.just([]), tool_calls()))
        content = draw(st.one_of(st.none(), TEXT)) if calls else draw(TEXT)
        messages.append({"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": draw(TEXT)} for call in calls]
        if calls:
            messages.append({"role": "assistant", "content": draw(TEXT)})
    return [*messages, {"role": "user", "content": draw(TEXT)}]


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Whole answers: thoughts, a text, calls of tools, each there or not."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.one_of(st.none(), TEXT))}
    if draw(st.booleans()):
        message["reasoning"] = draw(TEXT)
    calls = draw(st.one_of(st.just([]), tool_calls()))
    if calls or message["content"] is None:
        message["tool_calls"] = calls or draw(tool_calls())
    finish_reason = "tool_calls" if "tool_calls" in message else draw(st.sampled_from(["stop", "length"]))
    return completion(message, finish_reason)


def completion(message: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


def chunks_of(answer: Mapping[str, Any], piece: int) -> list[dict[str, Any]]:
    """The answer as a stream, its texts cut into pieces, and the parts of parallel calls mixed."""
    (choice,) = answer["choices"]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for name in ("reasoning", "content"):
        deltas += [{name: part} for part in _cut(message.get(name) or "", piece)]
    opened = []
    for index, call in enumerate(message.get("tool_calls") or ()):
        first = {"index": index, "id": call["id"], "type": "function", "function": {"name": call["function"]["name"]}}
        opened.append(
            [
                first,
                *(
                    {"index": index, "function": {"arguments": part}}
                    for part in _cut(call["function"]["arguments"], piece)
                ),
            ]
        )
    while any(opened):
        deltas += [{"tool_calls": [parts.pop(0)]} for parts in opened if parts]
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m"}
    made = [{**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    made.append({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    return [*made, {**common, "choices": [], "usage": answer["usage"]}]


def _cut(text: str, piece: int) -> list[str]:
    return [text[start : start + piece] for start in range(0, len(text), piece)]


def written(api: ClientApi, form: ClientForm, chunks: Sequence[Mapping[str, Any]]) -> tuple[bytes, Any]:
    """The stream that a client gets, and the whole answer that the writer has kept."""
    writer = api.writer(form)
    return b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(), writer.whole


def events_in(stream: bytes) -> list[dict[str, Any]]:
    """The data of the events. Each must have its type as its name."""
    found = []
    for event in SSEDecoder().feed(stream):
        if event.data is not None:
            payload = orjson.loads(event.data)
            assert event.raw.startswith(b"event: " + payload["type"].encode() + b"\n")
            found.append(payload)
    return found


def gathered(stream: bytes, translation: Translation) -> dict[str, Any]:
    """What a backend's stream amounts to once it is translated back."""
    reader = AnswerReader()
    for event in events_in(stream):
        for chunk in translation.feed(event):
            reader.chunk(chunk)
    assert translation.ended
    return {**(reader.gathered() or {}), "usage": reader.usage}
