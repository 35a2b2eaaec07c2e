"""POST /v1/feedback: what people say of a decision, kept as an example to learn from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from flask import Blueprint, Response

from ai_router.config import SessionBodies
from ai_router.errors import ClientError, InvalidRequest, NotFound
from ai_router.providers.own_routes import label_of
from ai_router.providers.registry import Registry
from ai_router.routing.verdict import LABELS
from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.session_reader import SessionFiles, SessionFilter
from ai_router.types import DecidedBy, FeedbackVerdict, Label, LabelName, label_named
from ai_router.web.access import whose
from ai_router.web.chat import ChatSettings
from ai_router.web.inputs import created, json_fields, text
from ai_router.web.reports import Lookups

if TYPE_CHECKING:
    from ai_router.storage.feedback import FeedbackStore

GOOD, BAD, SHOULD_BE = FeedbackVerdict
_SAME_ID = 10
"""So many requests of one id are looked at, the newest first."""
_SHOULD_BE = re.compile(r"should_be:\s*([\w-]+)")


class NoTextKept(ClientError):
    """409: the session of that request holds no text, so that there is nothing to learn from."""

    status = 409
    code = "no_text_kept"

    def __init__(self, bodies: str) -> None:
        super().__init__(f"that request was kept with SESSION_BODIES={bodies}: without its text nothing can be learned")


def blueprint(
    feedback: LazyStore[FeedbackStore],
    files: SessionFiles,
    writer: SessionLogger,
    flush: Callable[[], None],
    lookups: Lookups,
    settings: ChatSettings,
    keep_days: int,
    registry: Registry,
) -> Blueprint:
    """The route. ``flush`` has all requests that have ended recorded, and ``writer`` writes their files. ``keep_days``:
    how long a verdict is kept. ``registry``: has the owner's routes."""
    routes = Blueprint("feedback", __name__)

    @routes.post("/v1/feedback")
    def add() -> Response:
        """Keep a verdict. Raises NotFound for a request that is not known, and NoTextKept."""
        client = whose()
        fields = json_fields(settings.max_body, settings.max_values)
        request_id = text(fields, "request_id")
        verdict, wanted = _verdict(fields, labels := (*LABELS, *map(label_of, registry.catalogue.routes)))
        with lookups.slot():
            flush()
            writer.flush()
            page = files.page(SessionFilter(client=client, request_id=request_id), _SAME_ID)
            # A chat UI's own jobs (a title, tags) may have the id of the message that they are about.
            meant = [one for one in page.sessions if one["label"] != Label.META] or page.sessions
            found = files.get(meant[0]["session_id"], client) if meant else None
        if found is None:
            raise NotFound(f"no request '{request_id[:128]}' is kept here; the oldest are deleted in time")
        session = orjson.loads(found)
        row = feedback.store().add(_row(session, verdict, wanted, labels), keep_days)
        shown = ("id", "request_id", "session_id", "verdict", "decided", "label")
        return created(
            {"object": "feedback", **{name: row[name] for name in shown}, "example": row["label"] is not None}
        )

    return routes


def _verdict(fields: Mapping[str, Any], labels: Sequence[LabelName]) -> tuple[str, LabelName | None]:
    """The verdict, and the one of ``labels`` that the request should have had. ``should_be`` may be a field of its own,
    or stand in ``verdict``: "should_be: COMPLEX"."""
    verdict, wanted = fields.get("verdict"), fields.get("should_be")
    if isinstance(verdict, Mapping):
        wanted = verdict.get("should_be", "")
    elif isinstance(verdict, str) and (match := _SHOULD_BE.fullmatch(verdict.strip())):
        wanted = match[1]
    if wanted is not None:
        if not isinstance(wanted, str) or wanted.upper() not in labels:
            raise InvalidRequest(f"'should_be' must be one of {', '.join(labels)}", "should_be")
        return SHOULD_BE, label_named(wanted.upper())
    if verdict not in (GOOD, BAD):
        raise InvalidRequest("'verdict' must be good, bad or should_be: LABEL", "verdict")
    return str(verdict), None


def _was_judged(decision: Mapping[str, Any]) -> bool:
    """Whether the label says what the request needs: not where a policy, or the wish for quality, has led there."""
    raised = decision["label"] == Label.COMPLEX and decision.get("judged") is not None
    return decision["decided_by"] != DecidedBy.POLICY and not raised


def _row(
    session: Mapping[str, Any], verdict: str, wanted: LabelName | None, labels: Sequence[LabelName]
) -> dict[str, Any]:
    if session.get("bodies", SessionBodies.FULL) != SessionBodies.FULL or not session["client_messages"]:
        raise NoTextKept(session["bodies"])
    decided = (session["decision"] or {}).get("label") or ""
    good = decided if verdict == GOOD and decided in labels and _was_judged(session["decision"]) else None
    return {
        "client": session["client"],
        "organization": session["organization"],
        "request_id": session["request_id"],
        "session_id": session["session_id"],
        "verdict": verdict,
        "decided": decided,
        "label": wanted or good,
        "messages": session["client_messages"],
        "local_only": bool(session.get("private")),
    }
