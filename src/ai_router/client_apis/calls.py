"""Calls of tools in a stream, one after another. Pure.

Chat completions may send the parts of parallel calls mixed. Other APIs have one item or block a call, and an order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson


class CallPart(NamedTuple):
    """A part of the call ``number``: the name and the id, which the first one has, and more of the arguments."""

    number: int
    call_id: str
    name: str
    arguments: str


class CallsInOrder:
    """Takes the parts as they come, and returns them so that no call is gone back to once another has begun. A call
    whose arguments are a whole JSON value has ended."""

    def __init__(self) -> None:
        self._current: int | None = None
        self._arguments: dict[int, str] = {}
        self._waiting: dict[int, CallPart] = {}

    def feed(self, call: Mapping[str, Any]) -> Iterator[CallPart]:
        """The parts that may be sent now, for an entry of a chunk's ``tool_calls``."""
        function = call.get("function") or {}
        part = CallPart(
            call.get("index") or 0, call.get("id") or "", function.get("name") or "", function.get("arguments") or ""
        )
        if self._current is None or self._has_ended(self._current):
            self._current = part.number if part.number not in self._waiting else self._current
        if part.number != self._current:
            before = self._waiting.get(part.number, CallPart(part.number, "", "", ""))
            self._waiting[part.number] = CallPart(
                part.number,
                before.call_id or part.call_id,
                before.name or part.name,
                before.arguments + part.arguments,
            )
            if self._current is not None and self._has_ended(self._current):
                yield from self._next_waiting()
            return
        yield self._sent(part)
        if self._waiting and self._has_ended(part.number):
            yield from self._next_waiting()

    def rest(self) -> Iterator[CallPart]:
        """What has waited, once the answer has ended."""
        while self._waiting:
            yield from self._next_waiting()

    def _next_waiting(self) -> Iterator[CallPart]:
        index = min(self._waiting)
        self._current = index
        yield self._sent(self._waiting.pop(index))

    def _sent(self, part: CallPart) -> CallPart:
        self._arguments[part.number] = self._arguments.get(part.number, "") + part.arguments
        return part

    def _has_ended(self, index: int) -> bool:
        try:
            orjson.loads(self._arguments.get(index, ""))
        except orjson.JSONDecodeError:
            return False
        return True
