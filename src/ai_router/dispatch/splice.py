"""Putting a further member into an answer, or into the first event of a stream. No other byte changes."""

from __future__ import annotations

import re
from typing import Any

import orjson

_OBJECT = re.compile(rb"^(?:data:[ \t]*\{[^\r\n]*\}(?=[ \t]*\r?\n\r?\n)|\{[^\r\n]*\}(?=[ \t]*\r?\n))", re.MULTILINE)
"""An object on a line: all the data of an event of SSE, or a line of NDJSON."""
_DATA_BEFORE = re.compile(rb"^data:[^\n]*\n\Z", re.MULTILINE)
"""The line before is data of the same event."""
_LOOK_BACK = 4_096
"""Bytes before a line in which it is looked what the line before was."""


def in_answer(body: bytes, name: str, value: Any) -> bytes:
    """A whole answer with the member in it; itself, if it is no JSON object."""
    end = body.rfind(b"}")
    return with_member(body, end, name, value) if body.lstrip().startswith(b"{") and end > 0 else body


def first_event(portion: bytes) -> tuple[int, int] | None:
    """Where the first whole object of the events in ``portion`` begins and ends (its brace); None: there is none."""
    whole = (one for one in _OBJECT.finditer(portion) if not _DATA_BEFORE.search(portion[: one.start()][-_LOOK_BACK:]))
    found = next(whole, None)
    return None if found is None else (portion.index(b"{", found.start()), found.end() - 1)


def with_member(text: bytes, end: int, name: str, value: Any) -> bytes:
    """``text``, in which an object ends at ``end``, with one member more in that."""
    is_empty = text[:end].rstrip().endswith(b"{")
    member = orjson.dumps({name: value})[1:-1]
    return b"".join((text[:end], b"" if is_empty else b",", member, text[end:]))
