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
    whose arguments are a whole JSON value has ended.

    Calls are numbered from 0. Another id under a known index begins another call: some servers number all calls alike.
    """

    def __init__(self) -> None:
        self._numbers: dict[Any, tuple[int, str]] = {}
        """Of each index, the number and the id of its latest call."""
        self._begun = 0
        self._current: int | None = None
        self._arguments: dict[int, list[str]] = {}
        self._ended: set[int] = set()
        self._waiting: dict[int, CallPart] = {}

    def feed(self, call: Mapping[str, Any]) -> Iterator[CallPart]:
        """The parts that may be sent now, for an entry of a chunk's ``tool_calls``."""
        part = self._part(call)
        if self._current is None:
            self._current = part.number
        if part.number != self._current:
            self._wait(part)
        else:
            yield self._sent(part)
        # Only where others wait does it matter whether this one has ended.
        while self._waiting and self._has_ended(self._current):
            yield self._next_waiting()

    @property
    def is_open(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._current is not None and not self._has_ended(self._current)

    def rest(self) -> Iterator[CallPart]:
        """What has waited, once the answer has ended."""
        while self._waiting:
            yield self._next_waiting()

    def close(self) -> None:
        """No more is to come: the last call has ended, however it did."""
        if self._current is not None:
            self._ended.add(self._current)

    def _part(self, call: Mapping[str, Any]) -> CallPart:
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        index, call_id = call.get("index") or 0, str(call.get("id") or "")
        number, known_id = self._numbers.get(index, (-1, ""))
        if number < 0 or (call_id and known_id and call_id != known_id):
            number, self._begun = self._begun, self._begun + 1
        self._numbers[index] = number, call_id or known_id
        return CallPart(number, call_id, str(function.get("name") or ""), str(function.get("arguments") or ""))

    def _wait(self, part: CallPart) -> None:
        before = self._waiting.get(part.number, CallPart(part.number, "", "", ""))
        self._waiting[part.number] = CallPart(
            part.number, before.call_id or part.call_id, before.name or part.name, before.arguments + part.arguments
        )

    def _next_waiting(self) -> CallPart:
        self._current = min(self._waiting)
        return self._sent(self._waiting.pop(self._current))

    def _sent(self, part: CallPart) -> CallPart:
        self._arguments.setdefault(part.number, []).append(part.arguments)
        return part

    def _has_ended(self, number: int) -> bool:
        """Parsing is for what may be whole: an object that has not come to its end costs a look at its last letter."""
        if number in self._ended:
            return True
        parts = self._arguments.get(number, [])
        last = next((part.rstrip() for part in reversed(parts) if part.strip()), "")
        if not last.endswith("}"):
            return False
        try:
            orjson.loads("".join(parts))
        except orjson.JSONDecodeError:
            return False
        self._ended.add(number)
        return True
