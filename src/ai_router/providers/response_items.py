"""Reading the items of the Responses API, of OpenAI, xAI or Perplexity alike. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def output_texts(response: Mapping[str, Any]) -> Iterator[str]:
    """The texts of all messages."""
    for part in _parts(response):
        if isinstance(part.get("text"), str):
            yield part["text"]


def refusal_in(response: Mapping[str, Any]) -> str:
    """The words in which the model refused, if it did."""
    return "".join(str(part.get("refusal", "")) for part in _parts(response, "refusal"))


def sources(response: Mapping[str, Any]) -> Sequence[str]:
    """The addresses it rests on, each once: citations (xAI), annotations of the text, search results (Perplexity)."""
    listed = response.get("citations")
    found = list(listed) if isinstance(listed, list) else []
    found += [note for part in _parts(response) for note in mappings(part.get("annotations"))]
    found += [result for item in mappings(response.get("output")) for result in mappings(item.get("results"))]
    urls = [entry.get("url") if isinstance(entry, Mapping) else entry for entry in found]
    return list(dict.fromkeys(url for url in urls if isinstance(url, str)))


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of an array; nothing if it is none."""
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list) else iter(())


def text_in(content: Any) -> str:
    """The text of a message's content, which is a string or parts."""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in mappings(content))


def tool_call(item: Mapping[str, Any]) -> dict[str, Any]:
    """A ``function_call`` item as a tool call of chat completions."""
    function = {"name": item.get("name"), "arguments": item.get("arguments") or ""}
    return {"id": item.get("call_id") or item.get("id"), "type": "function", "function": function}


def finish_reason(response: Mapping[str, Any], *, called: bool) -> str:
    """Why it ended, in the words of chat completions; ``called``: with calls of tools."""
    why = (response.get("incomplete_details") or {}).get("reason")
    if response.get("status") == "incomplete" or why:
        return "content_filter" if why == "content_filter" else "length"
    return "tool_calls" if called else "stop"


def usage_and_sources(response: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Usage by its names in chat completions, the provider's own figures beside; and the sources as ``citations``."""
    usage = dict(response.get("usage") or {})
    tokens = {"prompt_tokens": usage.pop("input_tokens", 0), "completion_tokens": usage.pop("output_tokens", 0)}
    details = {"prompt_tokens_details": usage.pop("input_tokens_details", None)}
    details["completion_tokens_details"] = usage.pop("output_tokens_details", None)
    found = sources(response)
    named = {**tokens, **usage, **{name: value for name, value in details.items() if value}}
    return {"usage": named}, {"citations": found} if found else {}


def tool_call_key(event: Mapping[str, Any], item_id: Any) -> str:
    """What tells the calls of a stream apart."""
    index = event.get("output_index")
    return str(item_id if index is None else index)


def flattened_tool(tool: Any) -> Any:
    """``{"type": "function", "function": {...}}`` without the nesting, which this API does not have."""
    return {"type": "function", **tool["function"]} if isinstance(tool, dict) and "function" in tool else tool


def input_part(part: Any) -> Any:
    """A part of a chat message's content as one of an input item."""
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
