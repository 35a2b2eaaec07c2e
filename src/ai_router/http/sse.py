"""A decoder of server-sent events without I/O. Every byte is kept, but a byte order mark at the very start.

It cuts bytes at the ends of events, and returns each event as the exact bytes to relay, and as its data. Only an
unfinished event is held back, at most MAX_EVENT_BYTES of it. So a client never gets half an event and then an error.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 16 << 20

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLong(ValueError):
    """An event is longer than it may be, and has not ended."""


class Event(NamedTuple):
    """``raw``: the event's bytes with the blank line. ``data``: its data lines, joined by \\n; None if it has none."""

    raw: bytes
    data: bytes | None


class SSEDecoder:
    """Takes bytes in any portions and returns whole events."""

    __slots__ = ("_begun", "_last", "_max_event_bytes", "_more", "_more_bytes", "_pending")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = b""
        self._more: list[bytes] = []
        """What came of a long event behind ``_pending``: joined once, not with each portion."""
        self._more_bytes = 0
        self._last = b""
        """The last bytes that came."""
        self._begun = False

    def only_event(self, chunk: bytes) -> bytes | None:
        """The data of ``chunk`` if it is exactly one event with one data line, which is the usual case. None: use
        ``feed``."""
        # The first \n is the last but one byte, so that there is one line and one event.
        if self._pending or chunk[:7] != b"data: {" or chunk.find(b"\n") != len(chunk) - 2 or chunk[-1:] != b"\n":
            return None
        return chunk[6:-2]

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` completes, in order. Raises EventTooLong."""
        if not self._begun:
            # A byte order mark in front of the first event is none of it. It may come in parts.
            chunk = self._take() + chunk
            if len(chunk) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(chunk):
                self._pending = chunk
                return []
            self._begun, chunk = True, chunk.removeprefix(_BYTE_ORDER_MARK)
        if self._pending and not _may_end_an_event(self._last, chunk):
            self._more.append(chunk)
            self._last = (self._last + chunk)[-3:]
            self._more_bytes += len(chunk)
            self._check_length()
            return []
        buffer = self._take() + chunk if self._pending else chunk
        # All known backends end lines with \n alone. The slower way is for others.
        events = self._cut(buffer) if b"\r" in buffer else self._cut_newlines(buffer)
        self._last = self._pending[-3:]
        self._check_length()
        return events

    def _check_length(self) -> None:
        if len(self._pending) + self._more_bytes > self._max_event_bytes:
            raise EventTooLong(f"an event is longer than {self._max_event_bytes} bytes")

    def _take(self) -> bytes:
        whole = b"".join((self._pending, *self._more)) if self._more else self._pending
        self._pending, self._more, self._more_bytes = b"", [], 0
        return whole

    def finish(self) -> Event | None:
        """The bytes have ended: returns a last event without a blank line, if there is one. It may be cut off."""
        rest = self._take()
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


def _may_end_an_event(before: bytes, chunk: bytes) -> bool:
    """Whether a blank line ends in the portion, as far as that can be known yet. ``before``: the portion before."""
    # The longest one is \r\n\r\n.
    near = before[-3:] + chunk
    return b"\n\n" in near or (b"\r" in near and _BOUNDARY.search(near) is not None)


def _data_of(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return block[6:]
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(block) if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
