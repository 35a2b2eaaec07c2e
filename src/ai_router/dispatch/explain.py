"""``x_router``: what was decided, in the answer itself, for clients that hide headers. No other byte changes.

It is a further member of the answer, or of the first event of a stream, whatever the client's API.
"""

from __future__ import annotations

from typing import Any

from ai_router.dispatch.record import RequestRecord
from ai_router.dispatch.splice import first_event, in_answer, with_member
from ai_router.routing.shown_ask import shown_ask

FIELD = "x_router"


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
    return in_answer(body, FIELD, explanation(record))


def explained_first(portion: bytes, record: RequestRecord) -> bytes | None:
    """The beginning of a stream with the explanation in its first event; None: there is no whole event in it yet."""
    found = first_event(portion)
    return None if found is None else with_member(portion, found[1], FIELD, explanation(record))
