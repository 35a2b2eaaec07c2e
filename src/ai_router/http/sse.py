"""A sans-I/O decoder of server-sent events that keeps every byte.

It cuts the incoming bytes at event boundaries and hands each event out twice over: as the exact bytes to relay, and
as its data payload to look at. Only an unfinished event is held back, at most MAX_EVENT_BYTES of it, so a client
never gets half an event followed by an error.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 1 << 20

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLong(ValueError):
    """An event grew beyond MAX_EVENT_BYTES without ending."""


class Event(NamedTuple):
    """One event: ``raw`` with its terminating blank line; ``data`` joined as the standard says, None for comments."""

    raw: bytes
    data: bytes | None


class SSEDecoder:
    """Feed it bytes in any portions; it returns the events they complete."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def only_event(self, chunk: bytes) -> bytes | None:
        """The data of ``chunk`` where that is one whole event of one line, as most portions are; None: feed it."""
        # JSON that begins an object ends in one, so that all before the two line ends is the one line.
        if self._pending or chunk[:7] != b"data: {" or chunk.find(b"\n") != len(chunk) - 2 or chunk[-1:] != b"\n":
            return None
        return chunk[6:-2]

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` completes, in order. Raises EventTooLong."""
        buffer = self._pending + chunk if self._pending else chunk
        # Every backend we know ends lines with \n alone; the general pattern is for the ones we do not know.
        events = self._cut(buffer) if b"\r" in buffer else self._cut_newlines(buffer)
        if len(self._pending) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> Event | None:
        """What is left when the bytes have ended: a last event without its blank line, whole or broken."""
        rest, self._pending = self._pending, b""
        return Event(rest, _data_of(rest.rstrip(b"\r\n"))) if rest.strip() else None

    def _cut_newlines(self, buffer: bytes) -> list[Event]:
        *blocks, self._pending = buffer.split(b"\n\n")
        return [Event(block + b"\n\n", _data_of(block)) for block in blocks]

    def _cut(self, buffer: bytes) -> list[Event]:
        events, start = [], 0
        # A lone \r at the very end may be the first half of \r\n: leave it for the next portion.
        limit = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        for boundary in _BOUNDARY.finditer(buffer, 0, limit):
            events.append(Event(buffer[start : boundary.end()], _data_of(buffer[start : boundary.start()])))
            start = boundary.end()
        self._pending = buffer[start:]
        return events


def _data_of(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return block[6:]
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(block) if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
