"""A request of the Responses API, read as chat completions. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ai_router.apis import ReadRequest
from ai_router.client_apis.reading import as_json, joined_turns, limit_of, not_offered, objects, one_of, typed
from ai_router.errors import InvalidRequest

_NOT_OFFERED = {
    "background": "an answer is given at once, or streamed",
    "conversation": "send 'input', or 'previous_response_id'",
    "prompt": "templates of prompts are kept at OpenAI only",
}
_ONLY_HERE = frozenset(
    {
        *("background", "client_metadata", "context_management", "conversation", "include", "input", "instructions"),
        *("max_output_tokens", "max_tool_calls", "model", "previous_response_id", "prompt", "reasoning", "store"),
        *("stream", "stream_options", "text", "tool_choice", "tools", "truncation"),
    }
)
"""Fields that chat completions do not have, or not in this form. All others are the same there."""
_SEARCHES = ("web_search", "web_search_preview")
"""How the types of tools for searches begin: some have a date behind."""
_RUN_BY_SERVER = frozenset(
    {"code_interpreter", "computer", "computer_use_preview", "file_search", "image_generation", "mcp", "tool_search"}
)
_SYSTEM_ROLES = ("system", "developer")
_MESSAGE_ROLES = (*_SYSTEM_ROLES, "user", "assistant")
_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_JOINT = "__"
CUSTOM_INPUT = "input"
"""The one parameter of a function that stands for a custom tool, which takes a text."""


def read_request(payload: dict[str, Any]) -> ReadRequest:
    """The request. Raises InvalidRequest."""
    not_offered(payload, _NOT_OFFERED)
    typed(payload, "previous_response_id", str, "a string")
    found = payload.get("input")
    if found is None:
        raise InvalidRequest("'input' is required", "input", code="missing_required_parameter")
    instructions = typed(payload, "instructions", str, "a string")
    turns = [{"role": "system", "content": instructions}] if instructions else []
    untranslatable: list[str] = []
    if isinstance(found, str):
        turns.append({"role": "user", "content": found})
    else:
        turns += _turns(found, untranslatable)
    if not any(turn["role"] != "system" for turn in turns):
        raise InvalidRequest("'input' must have something in it", "input")
    tools, kept_tools, warnings = _tools(payload, untranslatable)
    choice, searches, allowed = _tool_choice(payload, bool(kept_tools))
    if allowed is not None:
        tools = [tool for tool in tools if tool["function"]["name"] in allowed]
    client_fields = {
        name: value for name, value in payload.items() if name not in ("model", "stream", "previous_response_id")
    }
    client_fields |= {"store": False} | ({"tools": kept_tools} if "tools" in client_fields else {})
    if choice is None:
        client_fields.pop("tool_choice", None)
    return ReadRequest(
        messages=joined_turns(turns),
        params=_params(payload, tools, choice),
        client_fields=client_fields,
        kept={
            "untranslatable": untranslatable[0] if untranslatable else None,
            "custom_tools": frozenset(tool["name"] for tool in _flattened(kept_tools) if tool.get("type") == "custom"),
            "namespaces": _namespaces(kept_tools),
            "reasoning": thought_ids(found),
            "store": payload.get("store") is not False,
            "previous": payload.get("previous_response_id"),
        },
        warnings=warnings,
        searches=searches,
    )


def _turns(items: Any, untranslatable: list[str]) -> Iterator[dict[str, Any]]:
    """The messages of chat completions for the input. Pictures in results of tools become a turn of the user's behind
    all results: chat completions have only text in a result, and nothing between two."""
    pictures: list[dict[str, Any]] = []
    for at, item in objects(items, "input"):
        if item.get("type") not in _OUTPUTS and pictures:
            yield {"role": "user", "content": pictures}
            pictures = []
        for turn in _turns_of(item, at, untranslatable):
            if turn["role"] == "tool" and isinstance(turn["content"], list):
                pictures += [part for part in turn["content"] if part["type"] != "text"]
                texts = [part["text"] for part in turn["content"] if part["type"] == "text"]
                yield {**turn, "content": "\n".join(texts)}
            else:
                yield turn
    if pictures:
        yield {"role": "user", "content": pictures}


def _turns_of(item: Mapping[str, Any], at: str, untranslatable: list[str]) -> Iterator[dict[str, Any]]:
    """The messages of chat completions for one item; none for reasoning, which no other backend can use."""
    kind = item.get("type") or "message"
    if kind == "message":
        role = item.get("role")
        if role not in _MESSAGE_ROLES:
            raise InvalidRequest(f"'{at}.role' must be one of {', '.join(_MESSAGE_ROLES)}", f"{at}.role")
        content = _content(item.get("content"), f"{at}.content", untranslatable)
        yield {"role": "system" if role in _SYSTEM_ROLES else role, "content": content}
    elif kind in _CALLS:
        name = flat_name(item.get("namespace"), typed(item, "name", str, "a string", at))
        arguments = typed(item, "arguments", str, "a string", at) or ""
        if kind == "custom_tool_call":
            arguments = as_json({CUSTOM_INPUT: typed(item, "input", str, "a string", at) or ""})
        call = {"id": item.get("call_id"), "type": "function", "function": {"name": name, "arguments": arguments}}
        yield {"role": "assistant", "content": None, "tool_calls": [call]}
    elif kind in _OUTPUTS:
        output = typed(item, "output", (str, list), "a string or an array", at)
        content = output if isinstance(output, str) else _content(output, f"{at}.output", untranslatable)
        yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": content or ""}
    elif kind == "item_reference":
        raise InvalidRequest(f"'{at}' refers to an item that is not kept here: send the item itself", at)
    elif kind != "reasoning":
        untranslatable.append(f"{at}.type")


def _content(content: Any, where: str, untranslatable: list[str]) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(part, at, untranslatable) for at, part in objects(content, where)]
    texts = [part["text"] for part in parts if part.get("type") == "text"]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def _part(part: Mapping[str, Any], at: str, untranslatable: list[str]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        return {"type": "text", "text": typed(part, "text", str, "a string", at) or ""}
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if part.get(name)}}
    if kind == "input_audio":
        return dict(part)
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
        kind = typed(tool, "type", str, "a string", at)
        if isinstance(kind, str) and kind.startswith(_SEARCHES):
            warnings.append(f"the tool {kind} was taken out: the router decides whether the web is searched")
            continue
        if kind in _RUN_BY_SERVER:
            raise InvalidRequest(f"'{at}': tools of the type {kind} are not offered", at, code="unsupported_tool")
        kept.append(tool)
        if kind == "namespace":
            list(objects(tool.get("tools"), f"{at}.tools"))
        for each in _flattened([tool]):
            if each.get("type") in ("function", "custom"):
                typed(each, "format", dict, "an object", at)
                if not isinstance(each.get("name"), str):
                    raise InvalidRequest(f"'{at}.name' must be a string", f"{at}.name", code="invalid_type")
                tools.append({"type": "function", "function": _function(each)})
            else:
                untranslatable.append(f"{at}.type")
    return tools, kept, tuple(dict.fromkeys(warnings))


def flat_name(namespace: Any, name: Any) -> Any:
    """The name of a tool of a namespace, which chat completions do not have."""
    return f"{namespace}{_JOINT}{name}" if namespace else name


def _flattened(tools: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The tools, with those of a namespace (Codex has some) one by one."""
    for tool in tools:
        if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            yield from ({**each, "name": flat_name(tool.get("name"), each.get("name"))} for each in tool["tools"])
        else:
            yield tool


def _namespaces(tools: Sequence[dict[str, Any]]) -> Mapping[str, tuple[str, str]]:
    """The namespace and the name of each tool in one, by its flat name."""
    grouped = [tool for tool in tools if tool.get("type") == "namespace"]
    return {
        str(flat_name(tool.get("name"), each.get("name"))): (str(tool.get("name")), str(each.get("name")))
        for tool in grouped
        for each in tool.get("tools") or ()
    }


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] == "function":
        return _set(tool, "name", "description", "parameters", "strict")
    format_of = tool.get("format") or {}
    grammar = f"\n\nThe input must match this {format_of.get('syntax')} grammar:\n{format_of.get('definition')}"
    described = str(tool.get("description") or "") + (grammar if format_of.get("type") == "grammar" else "")
    parameters = {
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string"}},
        "required": [CUSTOM_INPUT],
        "additionalProperties": False,
    }
    return {"name": tool.get("name"), "description": described, "parameters": parameters}


def _set(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names if fields.get(name) is not None}


def _tool_choice(payload: Mapping[str, Any], has_tools: bool) -> tuple[Any, bool, Collection[str] | None]:
    """The ``tool_choice`` of chat completions (None: not sent), whether the client wants a search, and the names of
    the tools that may be called (None: all)."""
    choice = typed(payload, "tool_choice", (str, dict), "a string or an object")
    if isinstance(choice, str):
        one_of(choice, ("auto", "none", "required"), "tool_choice")
        if choice == "required" and not has_tools:
            # The only tool there was is the search.
            return None, bool(payload.get("tools")), None
        return choice if has_tools else None, False, None
    if choice is None:
        return None, False, None
    kind = typed(choice, "type", str, "a string", "tool_choice") or ""
    if kind.startswith(_SEARCHES):
        return None, True, None
    if kind in ("function", "custom"):
        name = flat_name(choice.get("namespace"), typed(choice, "name", str, "a string", "tool_choice"))
        if not name:
            raise InvalidRequest("'tool_choice.name' is required", "tool_choice.name")
        return {"type": "function", "function": {"name": name}}, False, None
    if kind == "allowed_tools":
        named = [tool for _, tool in objects(choice.get("tools"), "tool_choice.tools")]
        allowed = {str(flat_name(tool.get("namespace"), tool.get("name"))) for tool in named}
        return one_of(choice.get("mode"), ("auto", "required"), "tool_choice.mode") or "auto", False, allowed
    raise InvalidRequest(f"'tool_choice' of the type '{kind[:40]}' is not offered", "tool_choice.type")


def _params(payload: Mapping[str, Any], tools: list[dict[str, Any]], choice: Any) -> dict[str, Any]:
    params = {name: value for name, value in payload.items() if name not in _ONLY_HERE}
    if (limit := limit_of(payload, "max_output_tokens")) is not None:
        params["max_tokens"] = limit
    reasoning = typed(payload, "reasoning", dict, "an object") or {}
    if (effort := reasoning.get("effort")) is not None:
        params["reasoning_effort"] = effort
    text = typed(payload, "text", dict, "an object") or {}
    if (verbosity := text.get("verbosity")) is not None:
        params["verbosity"] = verbosity
    wanted = typed(text, "format", dict, "an object", "text") or {}
    if wanted.get("type") == "json_schema":
        schema = _set(wanted, "name", "description", "schema", "strict")
        params["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted.get("type") == "json_object":
        params["response_format"] = {"type": "json_object"}
    if tools:
        params["tools"] = tools
        if choice is not None:
            params["tool_choice"] = choice
    else:
        params.pop("parallel_tool_calls", None)
    return params


def thought_ids(found: Any) -> tuple[str, ...]:
    """The ids of the thoughts among items."""
    items = found if isinstance(found, list) else ()
    return tuple(str(item.get("id") or "") for item in items if item.get("type") == "reasoning")
