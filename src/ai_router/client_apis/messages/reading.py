"""A request of Anthropic's Messages API, read as chat completions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.apis import ReadRequest
from ai_router.client_apis.reading import as_json, joined_turns, limit_of, objects, one_of, typed
from ai_router.errors import InvalidRequest
from ai_router.providers.message_blocks import is_thought, signature_of

_ONLY_HERE = frozenset(
    {
        *("cache_control", "container", "context_management", "inference_geo", "max_tokens", "mcp_servers", "messages"),
        *("metadata", "model", "output_config", "output_format", "speed", "stop_sequences", "stream", "system"),
        *("thinking", "tool_choice", "tools"),
    }
)
"""Fields that chat completions do not have, or not in this form. All others are the same there."""
_SEARCHES = "web_search"
_SEARCHES_AND_FETCHES = ("web_search", "web_fetch")
_RUN_BY_SERVER = ("code_execution", "mcp_toolset", "tool_search", "advisor")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_LOW_BUDGET, _HIGH_BUDGET = 4_096, 16_384
"""Tokens for thinking; below and above them the effort is low and high."""


def read_request(payload: dict[str, Any]) -> ReadRequest:
    """The request. Raises InvalidRequest."""
    if payload.get("messages") is None:
        raise InvalidRequest("'messages' is required", "messages", code="missing_required_parameter")
    limit = limit_of(payload, "max_tokens", required=True)
    untranslatable: list[str] = []
    turns = _system(payload)
    for at, message in objects(payload["messages"], "messages"):
        turns += _turns_of(message, at, untranslatable)
    if not any(turn["role"] != "system" for turn in turns):
        raise InvalidRequest("'messages' must have at least one message", "messages")
    tools, kept_tools, warnings = _tools(payload, untranslatable)
    choice, searches = _tool_choice(payload, bool(kept_tools))
    client_fields = {name: value for name, value in payload.items() if name not in ("model", "stream")}
    if "tools" in client_fields:
        client_fields |= {"tools": kept_tools}
        if not kept_tools or searches:
            client_fields.pop("tool_choice", None)
    return ReadRequest(
        messages=joined_turns(turns),
        params=_params(payload, limit, tools, choice),
        client_fields=client_fields,
        kept={
            "untranslatable": untranslatable[0] if untranslatable else None,
            "reasoning": signatures_in(payload["messages"]),
        },
        warnings=warnings,
        searches=searches,
    )


def signatures_in(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """The signatures of the thoughts in a conversation."""
    contents = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    return tuple(signature_of(block) for content in contents for block in content if is_thought(block))


def _system(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    system = payload.get("system")
    if not system:
        return []
    if not isinstance(system, str):
        system = "\n\n".join(str(block.get("text") or "") for _, block in objects(system, "system"))
    return [{"role": "system", "content": system}]


def _turns_of(message: Mapping[str, Any], at: str, untranslatable: list[str]) -> list[dict[str, Any]]:
    """The messages of chat completions for one message: each result of a tool is one of its own, before the text."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest(f"'{at}.role' must be 'user' or 'assistant'", f"{at}.role")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for where, block in objects(content, f"{at}.content"):
        kind = block.get("type")
        if kind == "tool_result":
            result, pictures = _result(block, where, untranslatable)
            results.append(result)
            parts += pictures
        elif kind == "tool_use":
            calls.append(_call(block, where))
        elif kind not in ("thinking", "redacted_thinking"):
            parts.append(_part(block, where, untranslatable))
    texts = [part["text"] for part in parts if part["type"] == "text"]
    joined: Any = "\n\n".join(texts) if len(texts) == len(parts) else parts
    turn = {"role": role, "content": joined or None, **({"tool_calls": calls} if calls else {})}
    return [*results, turn] if joined or calls else results


def _call(block: Mapping[str, Any], at: str) -> dict[str, Any]:
    function = {"name": typed(block, "name", str, "a string", at), "arguments": as_json(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _result(
    block: Mapping[str, Any], at: str, untranslatable: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result of a tool, and the pictures in it. They become parts of the user's turn behind all results: chat
    completions have only text in a result, and nothing between two."""
    content = typed(block, "content", (str, list), "a string or an array", at)
    pictures: list[dict[str, Any]] = []
    if isinstance(content, list):
        parts = [_part(part, where, untranslatable) for where, part in objects(content, f"{at}.content")]
        pictures = [part for part in parts if part["type"] != "text"]
        content = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
    told = f"error: {content}" if block.get("is_error") and content else content
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": told or ""}, pictures


def _part(block: Mapping[str, Any], at: str, untranslatable: list[str]) -> dict[str, Any]:
    kind, source = block.get("type"), block.get("source")
    if kind == "text":
        return {"type": "text", "text": typed(block, "text", str, "a string", at) or ""}
    if kind in ("image", "document") and isinstance(source, Mapping):
        if source.get("type") == "text":
            return {"type": "text", "text": str(source.get("data") or "")}
        url = source.get("url")
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        if isinstance(url, str) and kind == "image":
            return {"type": "image_url", "image_url": {"url": url}}
        if isinstance(url, str) and url.startswith("data:"):
            return {"type": "file", "file": {"filename": str(block.get("title") or "document.pdf"), "file_data": url}}
    untranslatable.append(at)
    return {"type": str(kind)}


def _tools(
    payload: Mapping[str, Any], untranslatable: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], tuple[str, ...]]:
    """The tools of chat completions, those of the body without searches, and warnings."""
    if payload.get("tools") is None:
        return [], [], ()
    tools, kept, warnings = [], [], []
    for at, tool in objects(payload["tools"], "tools"):
        kind = str(tool.get("type") or "custom")
        if kind.startswith(_SEARCHES_AND_FETCHES):
            warnings.append(f"the tool {kind} was taken out: the router decides whether the web is searched")
        elif kind.startswith(_RUN_BY_SERVER):
            raise InvalidRequest(f"'{at}': tools of the type {kind} are not offered", at, code="unsupported_tool")
        elif kind == "custom":
            kept.append(tool)
            typed(tool, "name", str, "a string", at)
            function = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {"type": "object"}}
            described = {"description": tool["description"]} if tool.get("description") else {}
            tools.append({"type": "function", "function": function | described})
        else:
            # Tools that Anthropic's models know, and clients run: bash, text_editor, computer, memory.
            kept.append(tool)
            untranslatable.append(f"{at}.type")
    return tools, kept, tuple(dict.fromkeys(warnings))


def _tool_choice(payload: Mapping[str, Any], has_tools: bool) -> tuple[Any, bool]:
    """The ``tool_choice`` of chat completions (None: not sent), and whether the client wants a search."""
    choice = typed(payload, "tool_choice", dict, "an object") or {}
    kind = choice.get("type")
    one_of(kind, ("auto", "any", "tool", "none"), "tool_choice.type")
    if kind == "tool":
        typed(choice, "name", str, "a string", "tool_choice")
    if kind == "tool" and str(choice.get("name")).startswith(_SEARCHES) and _has_search(payload):
        return None, True
    if kind == "any" and not has_tools:
        return None, _has_search(payload)
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}, False
    return _CHOICES.get(str(kind)) if has_tools else None, False


def _has_search(payload: Mapping[str, Any]) -> bool:
    return any(str(tool.get("type")).startswith(_SEARCHES) for tool in payload.get("tools") or ())


def _params(payload: Mapping[str, Any], limit: int | None, tools: list[dict[str, Any]], choice: Any) -> dict[str, Any]:
    params: dict[str, Any] = {name: value for name, value in payload.items() if name not in _ONLY_HERE}
    params["max_tokens"] = limit
    if stop := typed(payload, "stop_sequences", list, "an array"):
        params["stop"] = stop
    metadata = typed(payload, "metadata", dict, "an object") or {}
    if metadata.get("user_id"):
        params["user"] = metadata["user_id"]
    if tools:
        params["tools"] = tools
        if choice is not None:
            params["tool_choice"] = choice
        if (payload.get("tool_choice") or {}).get("disable_parallel_tool_use"):
            params["parallel_tool_calls"] = False
    config = typed(payload, "output_config", dict, "an object") or {}
    wanted = typed(config, "format", dict, "an object", "output_config")
    wanted = wanted or typed(payload, "output_format", dict, "an object") or {}
    if wanted.get("type") == "json_schema":
        schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
        params["response_format"] = {"type": "json_schema", "json_schema": schema}
    if (effort := config.get("effort") or _effort(payload)) is not None:
        params["reasoning_effort"] = effort
    return params


def _effort(payload: Mapping[str, Any]) -> str | None:
    """How hard the model may think; None: the client has not said."""
    thinking = typed(payload, "thinking", dict, "an object") or {}
    if thinking.get("type") == "disabled":
        return "none"
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return None
    return "low" if budget < _LOW_BUDGET else "high" if budget >= _HIGH_BUDGET else "medium"
