"""Reading and writing the items of the Responses API, as OpenAI, xAI and Perplexity have them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import Additions
from ai_router.providers.chat_completions import appended, with_context

THOUGHTS = "reasoning.encrypted_content"
"""What ``include`` asks for, to have thoughts in a form in which they can be sent again."""
SYSTEM_ROLES = ("system", "developer")
CALLS = ("function_call", "custom_tool_call")
"""The types of items that are calls of tools."""


def output_texts(response: Mapping[str, Any]) -> Iterator[str]:
    """The texts in all messages of a response, in order."""
    for part in _parts(response):
        if isinstance(part.get("text"), str):
            yield part["text"]


def refusal_in(response: Mapping[str, Any]) -> str:
    """The text with which the model refused; empty if it did not."""
    return "".join(str(part.get("refusal", "")) for part in _parts(response, "refusal"))


def reasoning_in(response: Mapping[str, Any]) -> str:
    """What the model tells of its thoughts: their text, or else their summary."""
    found = [item for item in mappings(response.get("output")) if item.get("type") == "reasoning"]
    parts = [part for item in found for part in mappings(item.get("content") or item.get("summary"))]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def sources(response: Mapping[str, Any]) -> Sequence[str]:
    """The URLs that a response cites, each once.

    They are in ``citations`` (xAI), in the ``annotations`` of the text, or in ``results`` of the items of a search
    (Perplexity).
    """
    listed = response.get("citations")
    entries = list(listed) if isinstance(listed, list) else []
    entries += [note for part in _parts(response) for note in mappings(part.get("annotations"))]
    entries += [result for item in mappings(response.get("output")) for result in mappings(item.get("results"))]
    urls = [entry.get("url") if isinstance(entry, Mapping) else entry for entry in entries]
    return list(dict.fromkeys(url for url in urls if isinstance(url, str)))


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects in a JSON array; nothing for any other value."""
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list) else iter(())


def text_in(content: Any) -> str:
    """The text of a chat message's content, which is a string or an array of parts."""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in mappings(content))


def tool_call(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of CALLS as an entry of ``tool_calls`` in chat completions."""
    function = {"name": item.get("name"), "arguments": item.get("arguments") or item.get("input") or ""}
    return {"id": item.get("call_id") or item.get("id"), "type": "function", "function": function}


def finish_reason(response: Mapping[str, Any], *, called: bool) -> str:
    """The ``finish_reason`` of chat completions for a response. ``called``: whether it has calls of tools."""
    why = (response.get("incomplete_details") or {}).get("reason")
    if response.get("status") == "incomplete" or why:
        return "content_filter" if why == "content_filter" else "length"
    return "tool_calls" if called else "stop"


def usage_and_sources(response: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``{"usage": ...}`` with the names of chat completions, and ``{"citations": [...]}`` or, without any, ``{}``.

    Fields of the usage that chat completions do not have, such as costs, stay as they are.
    """
    usage = dict(response.get("usage") or {})
    tokens = {"prompt_tokens": usage.pop("input_tokens", 0), "completion_tokens": usage.pop("output_tokens", 0)}
    details = {"prompt_tokens_details": usage.pop("input_tokens_details", None)}
    details["completion_tokens_details"] = usage.pop("output_tokens_details", None)
    urls = sources(response)
    chat_usage = {**tokens, **usage, **{name: value for name, value in details.items() if value}}
    return {"usage": chat_usage}, {"citations": urls} if urls else {}


def tool_call_key(event: Mapping[str, Any], item_id: Any) -> str:
    """A key that tells the tool calls of one stream apart: the event's ``output_index``, else the item's id."""
    index = event.get("output_index")
    return str(item_id if index is None else index)


def flattened_tool(tool: Any) -> Any:
    """A tool, or a choice of one, of chat completions without the nested ``function``, as this API has it."""
    return {"type": "function", **tool["function"]} if isinstance(tool, dict) and "function" in tool else tool


def complete(body: dict[str, Any], additions: Additions, left_out: Collection[str], *, thinks: bool) -> None:
    """Put the date and the web's context into the body of a request, and take the thoughts with these ids out.

    ``thinks``: the model has thoughts. Nothing is kept there, so that they have to come along with the next turn.
    """
    if thinks:
        wanted = orjson.loads(orjson.dumps(body.get("include") or []))
        body["include"] = wanted if THOUGHTS in wanted else [*wanted, THOUGHTS]
    date, context = additions.date, additions.context
    if date and isinstance(body.get("instructions"), str):
        body["instructions"], date = f"{body['instructions']}\n\n{date}", ""
    if isinstance(body["input"], str):
        body["input"] = f"{context}\n\n{body['input']}" if context else body["input"]
    elif date or context or left_out or b'"reasoning"' in orjson.dumps(body["input"]):
        sent = [item for item in orjson.loads(orjson.dumps(body["input"])) if not _is_thought(item, left_out)]
        if date and sent and sent[0].get("role") in SYSTEM_ROLES:
            # Chat templates take one system message only, which this one becomes.
            sent[0], date = {**sent[0], "content": appended(sent[0].get("content"), date, "input_text")}, ""
        body["input"] = with_context(sent, context, "input_text") if context else sent
    if date:
        body["instructions"] = date


def _is_thought(item: Mapping[str, Any], ids: Collection[str]) -> bool:
    """Whether an item is a thought that is left out: it has one of these ids, or nothing in it but a name."""
    if item.get("type") != "reasoning":
        return False
    return str(item.get("id") or "") in ids or not (item.get("encrypted_content") or item.get("content"))


def input_items(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The input items for a message of chat completions."""
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": text_in(content)}
        return
    if content:
        in_parts = isinstance(content, list) and role != "assistant"
        parts = [input_part(part) for part in content] if in_parts else text_in(content)
        yield {"type": "message", "role": role, "content": parts}
    for called in mappings(message.get("tool_calls")):
        yield {"type": "function_call", "call_id": called.get("id"), **(called.get("function") or {})}


def input_part(part: Any) -> Any:
    """A part of a chat message's content as a part of an input item. Unknown parts stay as they are."""
    if part.get("type") == "image_url":
        image = part.get("image_url")
        if not isinstance(image, dict):
            return {"type": "input_image", "image_url": image}
        detail = {"detail": image["detail"]} if "detail" in image else {}
        return {"type": "input_image", "image_url": image.get("url"), **detail}
    return {"type": "input_text", "text": part["text"]} if part.get("type") == "text" else part


def _parts(response: Mapping[str, Any], kind: str = "output_text") -> Iterator[Mapping[str, Any]]:
    for item in mappings(response.get("output")):
        if item.get("type") == "message":
            yield from (part for part in mappings(item.get("content")) if part.get("type") == kind)
