"""Reading stored sessions: what was asked, what was decided, how long it took and what it cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ai_router.routing.prompt import text_of
from ai_router.routing.verdict import LABELS
from ai_router.types import DecidedBy, Label, Message

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The parts of a session file that matter here. ``label`` is one of LABELS, decided by ``decided_by``."""

    session_id: str
    year: int
    messages: Sequence[Message]
    label: Label
    decided_by: DecidedBy
    route: str
    stream: bool
    status: str
    timings: Mapping[str, float]
    cost_usd: float | None

    @property
    def opening(self) -> str:
        """What the user said first: turns of one conversation have it in common."""
        return next((text_of(message) for message in self.messages if message.get("role") == "user"), "")


def read_sessions(folder: Path) -> Iterator[StoredSession]:
    """The sessions that were routed by a decision (not named by the client, not META), oldest first.

    A file that cannot be read is skipped with a warning. Raises FileNotFoundError for a folder that is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    for path in sorted(folder.glob("*.json")):
        try:
            session = _session(orjson.loads(path.read_bytes()))
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as problem:
            log.warning("%s is no session: %s", path.name, problem)
            continue
        if session is not None:
            yield session


def _session(document: Mapping[str, Any]) -> StoredSession | None:
    decision = document["decision"]
    if decision is None or decision["label"] not in LABELS:
        return None
    messages = document["client_messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("client_messages is no list")
    return StoredSession(
        session_id=document["session_id"],
        year=int(document["timestamp"][:4]),
        messages=messages,
        label=Label(decision["label"]),
        decided_by=DecidedBy(decision["decided_by"]),
        route=document["route"],
        stream=bool(document["stream"]),
        status=document["status"],
        timings=document["timings"],
        cost_usd=document["cost_usd"],
    )
