"""Writes session files: one JSON file for each request, after its response has closed, on a thread of its own.

A file is written whole (temporary name, then rename), with mode 0600. At most MAX_FILES are kept: after every 100 files
or 60 seconds, whichever comes first, the oldest beyond that are deleted. File names begin with the time, so that the
oldest are found without opening any.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from ai_router.config import SessionBodies
from ai_router.observability import log_lines
from ai_router.observability.recorder import Batches
from ai_router.observability.redaction import (
    Scrubber,
    kept_messages,
    kept_response,
    kept_step_detail,
)
from ai_router.storage.session_folder import SessionFolder
from ai_router.storage.session_reader import file_name
from ai_router.types import Cost, Decision, Outcome

log = logging.getLogger(__name__)

MAX_FILES = 5_000
CLEANUP_INTERVAL = 100
CLEANUP_PERIOD_S = 60.0
_QUEUE_LIMIT = 2_000
"""How many outcomes wait at most; any beyond that are lost, and counted."""
_PORTION = 4
"""Files; each takes a quarter of a millisecond."""
_TMP_SUFFIX = ".tmp"
_LEFTOVER_S = 60.0
"""How old a half-written file is that nobody is writing any more."""


class SessionLogger:
    """Saves outcomes as session files in ``directory``. If the disk is full or too slow, only sessions are lost.

    ``max_files``: how many files are kept. ``period_s``: how often they are counted. ``bodies``: what is kept of the
    conversation and the answer. ``scrubber`` takes secrets out. ``on_lost`` is called for each session that is lost.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_files: int = MAX_FILES,
        period_s: float = CLEANUP_PERIOD_S,
        bodies: SessionBodies = SessionBodies.FULL,
        scrubber: Scrubber | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._bodies = bodies
        self._scrubber = scrubber or Scrubber()
        self._on_lost = on_lost
        self._folder = SessionFolder(directory, max_files, period_s)
        self._period_s = period_s
        self._prefix = os.path.join(os.fspath(directory), "")  # noqa: PTH118 - Path costs as much as the rename
        self._batches: Batches[tuple[Outcome, Cost | None]] = Batches(
            self._save_all, name="session-writer", limit=_QUEUE_LIMIT, idle_s=period_s, portion=_PORTION
        )
        self._saves_since_cleanup = 0
        self._last_cleanup = time.monotonic()
        self._prepared = False
        self.lost = 0
        """How many sessions could not be written since the start."""
        self.last_error: str | None = None
        """Why the last save failed; None once one has worked."""

    set_query = staticmethod(orjson.dumps)
    """Serialise a conversation: done once, when it arrives, for the backends and for the session file alike."""

    def start(self) -> None:
        """Start the thread, and delete half-written files of an earlier process."""
        # A directory that cannot be made is reported with the first session that is lost.
        with contextlib.suppress(OSError):
            self._prepare()
        self._batches.start()

    def record(self, outcome: Outcome, cost: Cost | None = None) -> None:
        """Queue an outcome; returns at once. A sink of the recorder."""
        if not self._batches.put((outcome, cost)):
            self._count_lost("the writer cannot keep up")

    def flush(self) -> None:
        """Save what waits now. To be called before session files are read."""
        self._batches.flush()

    def close(self) -> None:
        """Save what waits, then stop."""
        for _ in self._batches.close():
            self._count_lost("the stop came first")

    def save(self, outcome: Outcome, cost: Cost | None = None) -> None:
        """Write one session file, and delete old ones if it is time. A failure is counted and logged, not raised."""
        started = time.monotonic()
        try:
            self._prepare()
            try:
                self._write(outcome, cost)
            except FileNotFoundError:  # somebody has removed the directory: it is made again
                self._prepared = False
                self._folder.forget()
                self._prepare()
                self._write(outcome, cost)
        except OSError as error:
            self._count_lost(error.strerror or type(error).__name__)
            return
        written = time.monotonic()
        self.last_error = None
        self._saves_since_cleanup += 1
        self._cleanup_if_due()
        log_lines.session_saved(
            outcome.request.session_id,
            write_ms=(written - started) * 1000,
            cleanup_ms=(time.monotonic() - written) * 1000,
        )

    def _save_all(self, outcomes: Sequence[tuple[Outcome, Cost | None]]) -> None:
        for outcome, cost in outcomes:
            try:
                self.save(outcome, cost)
            except Exception as error:  # at the edge of a background thread: no session may cost another
                log.exception("a session could not be written")
                self._count_lost(type(error).__name__)
        self._cleanup_if_due()

    def _prepare(self) -> None:
        """Make the directory, and delete half-written files in it."""
        if self._prepared:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._directory.glob(f".*{_TMP_SUFFIX}"):
            if not _is_being_written(leftover):
                leftover.unlink(missing_ok=True)
        self._prepared = True

    def _write(self, outcome: Outcome, cost: Cost | None) -> None:
        name = file_name(outcome.request.timestamp, outcome.request.session_id)
        temporary = f"{self._prefix}.{name}.{os.getpid()}{_TMP_SUFFIX}"
        body = self._scrubber.json(_serialise(session_document(outcome, cost, self._bodies)))
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write_all(descriptor, body)
            finally:
                os.close(descriptor)
            os.rename(temporary, self._prefix + name)  # noqa: PTH104 - as above
            self._folder.added(name)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - as above
            raise

    def _cleanup_if_due(self) -> None:
        due = self._saves_since_cleanup >= CLEANUP_INTERVAL or time.monotonic() - self._last_cleanup >= self._period_s
        if due:
            self._cleanup()
            self._saves_since_cleanup = 0
            self._last_cleanup = time.monotonic()

    def _cleanup(self) -> None:
        """Delete the oldest files beyond the limit."""
        try:
            self._folder.delete_oldest()
        except OSError as error:
            log.warning("Session cleanup failed: %s", error.strerror)

    def _count_lost(self, reason: str) -> None:
        self.lost += 1
        self._on_lost()
        if self.last_error != reason:
            log.warning("Session not saved: %s (%d lost so far)", reason, self.lost)
        self.last_error = reason


def _is_being_written(half: Path) -> bool:
    """Whether another process of this machine is writing this half-written file; that takes it milliseconds."""
    writer = half.name.split(".")[-2]
    try:
        is_new = time.time() - half.stat().st_mtime < _LEFTOVER_S
        if not is_new or not writer.isdecimal() or int(writer) == os.getpid():
            return False
        os.kill(int(writer), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True


def _serialise(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str)
    except orjson.JSONEncodeError as error:
        # orjson reads up to 1,024 levels of nesting but writes 254, and a backend's answer may have more.
        without_answer = {**document, "response": None, "usage": None, "error": f"the answer cannot be saved: {error}"}
        return orjson.dumps(without_answer, option=orjson.OPT_INDENT_2, default=str)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _timings(outcome: Outcome) -> dict[str, Any]:
    """All timings in milliseconds. ``parts`` do not overlap; together with ``unaccounted_ms`` they add up to
    ``total_ms``. All other values may overlap."""
    parts = {name: round(value, 2) for name, value in outcome.parts.items()}
    total_ms = round(outcome.timings["total_ms"], 1)
    unaccounted = {"unaccounted_ms": round(total_ms - sum(parts.values()), 1)}
    return {name: round(value, 1) for name, value in outcome.timings.items()} | {"parts": parts} | unaccounted


_OF_DECISIONS = tuple(field.name for field in dataclasses.fields(Decision) if field.name not in ("ask", "evidence"))


def _decision(decision: Decision) -> dict[str, Any]:
    """All but the user's words that were judged: how much of a conversation is kept is for SESSION_BODIES to say."""
    return {name: getattr(decision, name) for name in _OF_DECISIONS}


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "known_usd": cost.known_usd,
        "basis": cost.basis,
        "unknown": cost.unknown,
        "gpu_seconds": round(cost.gpu_s, 3),
        "baseline_usd": cost.baseline_usd,
    }


def session_document(
    outcome: Outcome, cost: Cost | None = None, bodies: SessionBodies = SessionBodies.FULL
) -> dict[str, Any]:
    """The content of a session file, to be written by orjson.

    ``client_messages`` are the bytes that were serialised at arrival, or what ``bodies`` leaves of them.
    """
    request = outcome.request
    return {
        "session_id": request.session_id,
        "timestamp": request.timestamp.isoformat(),
        "request_id": request.request_id,
        "client": request.client,
        "organization": request.organization,
        "trace_id": None if request.trace is None else f"{request.trace.trace_id:032x}",
        "status": outcome.status,
        "error": outcome.error,
        "model": request.model,
        "answered_by": outcome.model,
        "private": bool(request.local_only),
        "api": "chat" if request.client_form is None else request.client_form.api.name,
        "stream": request.stream,
        "route": outcome.route,
        "reason": outcome.reason,
        "decision": None if outcome.decision is None else _decision(outcome.decision),
        "speculation": outcome.speculation,
        "steps": [
            {
                "kind": step.kind,
                "started_ms": round(step.started_ms, 1),
                "duration_ms": round(step.duration_ms, 1),
                **kept_step_detail(step.detail, bodies),
            }
            for step in outcome.steps
        ],
        "bodies": bodies,
        "client_messages": kept_messages(request.messages_json, bodies),
        "response": kept_response(outcome.response, bodies),
        "usage": outcome.usage,
        "cost_usd": None if cost is None else cost.usd,
        "cost": None if cost is None else _cost(cost),
        "timings": _timings(outcome),
    }
