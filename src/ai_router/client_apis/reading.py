"""Reading fields of a client's body, with errors that name them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import orjson

from ai_router.errors import InvalidRequest


def typed(payload: Mapping[str, Any], name: str, kind: type | tuple[type, ...], called: str, at: str = "") -> Any:
    """A field of one of these types, or None. ``at``: where the object stands, for the error. Raises InvalidRequest."""
    value = payload.get(name)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        where = f"{at}.{name}" if at else name
        raise InvalidRequest(f"'{where}' must be {called}", where, code="invalid_type")
    return value


def objects(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of an array, each with its place. Raises InvalidRequest for anything else."""
    if not isinstance(value, list):
        raise InvalidRequest(f"'{where}' must be an array", where, code="invalid_type")
    for index, item in enumerate(value):
        at = f"{where}[{index}]"
        if not isinstance(item, dict):
            raise InvalidRequest(f"'{at}' must be an object", at, code="invalid_type")
        yield at, item


def limit_of(payload: Mapping[str, Any], name: str, *, required: bool = False) -> int | None:
    """A number of tokens, 1 at least. Raises InvalidRequest."""
    value: int | None = typed(payload, name, int, "an integer")
    if value is None and required:
        raise InvalidRequest(f"'{name}' is required", name, code="missing_required_parameter")
    if value is not None and value < 1:
        raise InvalidRequest(f"'{name}' must be at least 1", name)
    return value


def not_offered(payload: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raises InvalidRequest for a field that is set and not offered. ``names``: the fields, and what to say of each."""
    for name, why in names.items():
        if payload.get(name):
            raise InvalidRequest(f"'{name}' is not offered: {why}", name, code="unsupported_parameter")


def as_json(value: Any) -> str:
    """JSON of a value that was read as JSON: also with whole numbers beyond 64 bits, which orjson does not write."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def one_of(value: Any, names: Collection[str], where: str) -> Any:
    """The value, which is one of these texts, or None. Raises InvalidRequest."""
    if value is not None and (not isinstance(value, str) or value not in names):
        raise InvalidRequest(f"'{where}' must be one of {', '.join(names)}", where)
    return value


def joined_turns(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of chat completions, with those of one assistant's turn in one, and one system message at most.

    Other APIs have a call of a tool as an item of its own. Many chat templates take one system message only, and that
    first: later ones (Claude Code has some) become reminders behind the user's words, as agents write them.
    """
    joined: list[dict[str, Any]] = []
    for given in turns:
        last = joined[-1] if joined else None
        turn = given if given["role"] != "system" or last is None or last["role"] == "system" else _reminder(given)
        if turn is not given and last is not None and last["role"] == "user":
            joined[-1] = {**last, "content": both(last["content"], turn["content"])}
            continue
        if last is not None and turn["role"] == last["role"] == "assistant":
            joined[-1] = _joined_assistant(last, turn)
        elif last is not None and turn["role"] == last["role"] == "system" and len(joined) == 1:
            joined[-1] = {"role": "system", "content": both(last["content"], turn["content"])}
        else:
            joined.append(turn)
    return joined


def _reminder(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn.get("content")
    text = content if isinstance(content, str) else "\n".join(str(part.get("text") or "") for part in content or ())
    return {"role": "user", "content": f"<system-reminder>\n{text}\n</system-reminder>"}


def _joined_assistant(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    calls = [*first.get("tool_calls", ()), *second.get("tool_calls", ())]
    content = both(first.get("content"), second.get("content"))
    return {**first, **second, "content": content, **({"tool_calls": calls} if calls else {})}


def both(first: Any, second: Any) -> Any:
    """Two contents of messages, each a text, an array of parts or None, as one."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_as_parts(first), *_as_parts(second)]


def _as_parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
