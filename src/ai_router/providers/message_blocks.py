"""Reading and writing the blocks of Anthropic's Messages API. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

_DATA_URL = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+);base64,", re.IGNORECASE)
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""``finish_reason`` of chat completions, and what it is here."""


def text_in(content: Any) -> str:
    """The text of a content, which is a string or an array of blocks or parts."""
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content or () if isinstance(block, Mapping))


def joined(content: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The texts of the blocks of a kind, whose text is in a field of the same name."""
    return "".join(str(block.get(kind) or "") for block in content if block.get("type") == kind)


def finish_reason(stop_reason: Any) -> str:
    """The ``finish_reason`` of chat completions."""
    return _FINISH_REASONS.get(stop_reason or "", "stop")


def tool_call(block: Mapping[str, Any]) -> dict[str, Any]:
    """A ``tool_use`` block as an entry of ``tool_calls``."""
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {"id": block.get("id"), "type": "function", "function": {"name": block.get("name"), "arguments": arguments}}


def chat_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The usage with the names of chat completions. Anthropic counts what was cached apart, chat completions do not."""
    cached, made = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    prompt, completion = (usage.get("input_tokens") or 0) + cached + made, usage.get("output_tokens") or 0
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    hour = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    details = {"cached_tokens": cached} | ({"cache_creation_tokens": made} if made else {})
    details |= {"cache_creation_hour_tokens": hour} if hour else {}
    return {**told, "prompt_tokens_details": details} if cached or made else told


def tool(given: Mapping[str, Any]) -> dict[str, Any]:
    """A tool of chat completions. Raises KeyError for one that is no function."""
    function = given["function"]
    described = {"description": function["description"]} if function.get("description") else {}
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function["name"], **described, "input_schema": schema}


def tool_choice(choice: Any) -> dict[str, Any] | None:
    """The ``tool_choice`` of chat completions; None: none was set."""
    if isinstance(choice, Mapping):
        return {"type": "tool", "name": choice["function"]["name"]}
    return None if choice is None else {"type": {"required": "any"}.get(choice, choice)}


def without_thoughts(turn: dict[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """The turn without the thoughts that have these signatures."""
    content = turn.get("content")
    if not isinstance(content, list):
        return turn
    kept = [block for block in content if not is_thought(block) or signature_of(block) not in left_out]
    # A turn must have something in it.
    return {**turn, "content": kept or [{"type": "text", "text": "..."}]}


def is_thought(block: Any) -> bool:
    """Whether a block is a thought, which only the provider that made it can read again."""
    return isinstance(block, Mapping) and block.get("type") in ("thinking", "redacted_thinking")


def signature_of(block: Mapping[str, Any]) -> str:
    """What tells whose thought it is: what it was signed with, or its encrypted text; empty: the router wrote the
    block, which cannot sign."""
    return str(block.get("signature") or block.get("data") or "")


def tool_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """The fields for tools, from those of chat completions."""
    tools = params.get("tools")
    if not tools:
        return {}
    chosen = tool_choice(params.get("tool_choice"))
    if params.get("parallel_tool_calls") is False and (chosen or {}).get("type") != "none":
        chosen = {"type": "auto", **(chosen or {}), "disable_parallel_tool_use": True}
    return {"tools": [tool(given) for given in tools], **({"tool_choice": chosen} if chosen else {})}


def output_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """The fields for how hard the model thinks, and for the form of its answer, from those of chat completions."""
    effort, wanted = params.get("reasoning_effort"), params.get("response_format")
    config: dict[str, Any] = {"effort": _EFFORTS[effort]} if effort in _EFFORTS else {}
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        config["format"] = {"type": "json_schema", "schema": wanted["json_schema"]["schema"]}
    thinking = {"thinking": {"type": "disabled"}} if effort == "none" else {}
    return {**thinking, **({"output_config": config} if config else {})}


def turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages of chat completions, without the system's, as turns. Raises ValueError for what has no place here.

    Results of tools are the user's turn here, and stand before its text.
    """
    made: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.get("role") == "assistant" else "user"
        content = _blocks(message)
        if made and made[-1]["role"] == role:
            made[-1]["content"] += content
        elif content:
            made.append({"role": role, "content": content})
    return made


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        result = content if isinstance(content, str) else [_block(part) for part in content or ()]
        return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": result}]
    if isinstance(content, str):
        found = [{"type": "text", "text": content}] if content else []
    else:
        found = [_block(part) for part in content or ()]
    return found + [_tool_use(call) for call in message.get("tool_calls") or ()]


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = orjson.loads(function.get("arguments") or "{}")
    return {"type": "tool_use", "id": call.get("id"), "name": function["name"], "input": arguments}


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind == "image_url":
        url = part["image_url"]
        return {"type": "image", "source": _source(url["url"] if isinstance(url, Mapping) else url)}
    if kind == "file":
        return {"type": "document", "source": _source(part["file"]["file_data"])}
    raise ValueError(f"a part of the type {kind} has no place in this API")


def _source(url: str) -> dict[str, Any]:
    found = _DATA_URL.match(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found[1].lower(), "data": url[found.end() :]}
