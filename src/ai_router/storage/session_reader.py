"""Reads the folder of session files: newest first, filtered, page by page.

File names begin with the time, so that they are sorted without opening any. What a list shows of a file is cached by
its name, since a file never changes. A search for a text reads every file, until the page is full or its time is up.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from cachetools import LRUCache

SESSION_ID = re.compile(r"[0-9a-f]{8,32}")
"""The form of a session's id."""
CURSOR = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8,32}")
"""The form of a page's cursor: a file's name without its extension."""
_CACHED_SUMMARIES = 20_000
_PAGE_TIME_S = 2.0
"""How long a page may take."""


def file_name(timestamp: datetime, session_id: str) -> str:
    """The name of a session's file, such as ``20261121T195622.123456Z-dba46d38.json``; ``timestamp`` is in UTC."""
    # In half the time of strftime.
    digits = timestamp.isoformat(timespec="microseconds").replace("-", "").replace(":", "")
    return f"{digits[:22]}Z-{session_id}.json"


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list. A field that is None filters nothing.

    ``slow`` is called with a session's route and its milliseconds. ``text`` is looked for in the messages and the
    answer, regardless of case. ``before``: a cursor; only older sessions are listed.
    """

    client: str | None = None
    route: str | None = None
    status: str | None = None
    slow: Callable[[str, float], bool] | None = None
    text: str | None = None
    before: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Summaries of sessions, newest first. ``next``: the cursor of the next page; None at the end. ``complete``: False
    if the time was up before the page was full."""

    sessions: list[Mapping[str, Any]]
    next: str | None
    complete: bool


class SessionFiles:
    """Reads the session files in ``folder``, while others write and delete them. May be used from any thread."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        """Held for reads, too: a cache that evicts what was used longest ago notes each use."""
        self._summaries: LRUCache[str, Mapping[str, Any]] = LRUCache(_CACHED_SUMMARIES)

    def page(self, session_filter: SessionFilter, limit: int) -> Page:
        """The newest sessions that match, ``limit`` at most."""
        end, found, last = self._clock() + _PAGE_TIME_S, list[Mapping[str, Any]](), None
        for stem in self._stems(session_filter.before):
            if len(found) == limit:
                return Page(found, last, complete=True)
            if last is not None and self._clock() > end:
                # The session where it stopped may be another client's: the cursor has its time, not its id.
                return Page(found, f"{last.partition('-')[0]}-{'0' * 8}", complete=False)
            last = stem
            summary = self._matching(stem, session_filter)
            if summary is not None:
                found.append(summary)
        return Page(found, None, complete=True)

    def get(self, session_id: str, client: str | None) -> bytes | None:
        """The content of the session's file. None if there is none, or if it is not ``client``'s (None: anyone's)."""
        for stem in self._stems(None):
            if stem.endswith(f"-{session_id}"):
                summary = self._summary(stem)
                visible = summary is not None and (client is None or summary["client"] == client)
                return self.read(stem) if visible else None
        return None

    def names(self) -> Iterator[str]:
        """The names of all files, newest first, for ``read``."""
        return self._stems(None)

    def _stems(self, before: str | None) -> Iterator[str]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return
        stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        yield from sorted((s for s in stems if CURSOR.fullmatch(s) and (before is None or s < before)), reverse=True)

    def _matching(self, stem: str, session_filter: SessionFilter) -> Mapping[str, Any] | None:
        summary = self._summary(stem)
        if summary is None or not _matches(summary, session_filter):
            return None
        return summary if session_filter.text is None or self._contains(stem, session_filter.text) else None

    def _summary(self, stem: str) -> Mapping[str, Any] | None:
        with self._lock:
            known = self._summaries.get(stem)
        if known is not None:
            return known
        try:
            summary = summary_of(orjson.loads(self.read(stem) or b""))
        except (ValueError, KeyError, TypeError, AttributeError):  # not a session file, although it is named like one
            return None
        with self._lock:
            self._summaries[stem] = summary
        return summary

    def _contains(self, stem: str, text: str) -> bool:
        try:
            document = orjson.loads(self.read(stem) or b"")
        except ValueError:
            return False
        bodies = (document.get("client_messages"), document.get("response"))
        return any(text.casefold() in string.casefold() for string in _strings(bodies))

    def read(self, stem: str) -> bytes | None:
        """The content of the file of that name, whosever it is; None if it has been deleted."""
        try:
            return (self._folder / f"{stem}.json").read_bytes()
        except OSError:  # deleted meanwhile
            return None


def summary_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a list shows of a session. Raises KeyError, TypeError or AttributeError if ``document`` is no session."""
    decision, timings = document["decision"] or {}, document["timings"]
    return {
        "session_id": document["session_id"],
        "timestamp": document["timestamp"],
        "request_id": document["request_id"],
        "client": document.get("client", ""),
        "status": document["status"],
        "error": document["error"],
        "route": document["route"],
        "model": document.get("answered_by") or document["model"],
        "stream": document["stream"],
        "decided_by": decision.get("decided_by"),
        "label": decision.get("label"),
        "confidence": decision.get("confidence"),
        "speculation": document.get("speculation"),
        "total_ms": timings["total_ms"],
        "ttft_ms": timings.get("ttft_ms"),
        "cost_usd": document["cost_usd"],
        "opening": opening_of(document.get("client_messages")),
    }


_OPENING_CHARS = 120


def opening_of(messages: Any) -> str | None:
    """The first 120 characters of the user's last message; None where messages are not kept."""
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            return " ".join(" ".join(_strings(message.get("content"))).split())[:_OPENING_CHARS]
    return None


def _matches(summary: Mapping[str, Any], session_filter: SessionFilter) -> bool:
    return (
        (session_filter.client is None or summary["client"] == session_filter.client)
        and (session_filter.request_id is None or summary["request_id"] == session_filter.request_id)
        and (session_filter.route is None or summary["route"] == session_filter.route)
        and (session_filter.status is None or summary["status"] == session_filter.status)
        and (session_filter.slow is None or session_filter.slow(summary["route"], summary["total_ms"]))
    )


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, without the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
