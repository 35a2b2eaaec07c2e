"""``x_router``: what was decided, in the answer itself, for clients that hide headers. No other byte changes.

It is a further member of the answer, or of the first event of a stream, whatever the client's API.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from ai_router.dispatch.record import RequestRecord
from ai_router.routing.router import shown_ask

FIELD = "x_router"
_LOOK_BACK = 4_096
"""Bytes before a line in which it is looked what the line before was."""
_OBJECT = re.compile(rb"^(?:data:[ \t]*\{[^\r\n]*\}(?=[ \t]*\r?\n\r?\n)|\{[^\r\n]*\}(?=[ \t]*\r?\n))", re.MULTILINE)
"""An object on a line: all the data of an event of SSE, or a line of NDJSON."""
_DATA_BEFORE = re.compile(rb"^data:[^\n]*\n\Z", re.MULTILINE)
"""The line before is data of the same event."""


def explanation(record: RequestRecord) -> dict[str, Any]:
    """What the headers say, as far as it is known when the answer begins."""
    decision = record.decision
    found = {"request_id": record.request.request_id, "session_id": record.request.session_id}
    if decision is None:
        return found
    return found | {
        "route": record.route,
        "model": record.model,
        "label": decision.label,
        "decided_by": decision.decided_by,
        "confidence": None if decision.confidence is None else round(decision.confidence, 4),
        "reason": record.scrub(record.reason),
        "ask": shown_ask(decision, record.scrub),
        "speculation": record.speculation,
        "warning": record.warning or None,
    }


def explained(body: bytes, record: RequestRecord) -> bytes:
    """A whole answer with the explanation in it; itself, if it is no JSON object."""
    end = body.rfind(b"}")
    return _with_member(body, end, record) if body.lstrip().startswith(b"{") and end > 0 else body


def explained_first(portion: bytes, record: RequestRecord) -> bytes | None:
    """The beginning of a stream with the explanation in its first event; None: there is no whole event in it yet."""
    whole = (one for one in _OBJECT.finditer(portion) if not _DATA_BEFORE.search(portion[: one.start()][-_LOOK_BACK:]))
    found = next(whole, None)
    return None if found is None else _with_member(portion, found.end() - 1, record)


def _with_member(text: bytes, end: int, record: RequestRecord) -> bytes:
    """``text``, in which an object ends at ``end``, with one member more in that."""
    is_empty = text[:end].rstrip().endswith(b"{")
    member = orjson.dumps({FIELD: explanation(record)})[1:-1]
    return b"".join((text[:end], b"" if is_empty else b",", member, text[end:]))
