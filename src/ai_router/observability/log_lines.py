"""The log lines of the contract, one function each, in exactly the shapes that scripts rely on (docs/log.md)."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ai_router.observability.recorder import Batches
from ai_router.types import Attempt, Decision, Outcome, Status

log = logging.getLogger("ai_router.request")


class LogEntry(logging.LogRecord):
    """A log record of a template and its fields. It lacks the place in the code that logged it: finding that takes
    most of the time of making a record."""

    def __init__(self, level: int, template: str, fields: Mapping[str, Any]) -> None:
        created = time.time()
        self.__dict__.update(_BLANK)
        self.levelno, self.levelname = level, "INFO" if level == logging.INFO else logging.getLevelName(level)
        self.msg, self.args = template, fields
        self.created, self.msecs = created, created % 1 * 1000


class QueueHandler(logging.Handler):
    """Queues records for the writer's thread. Arguments are merged into the message first, on the request's thread,
    since they may change later; those of a LogEntry do not change, so the writer's thread merges them."""

    def __init__(self, batches: Batches[logging.LogRecord]) -> None:
        super().__init__()
        self._batches = batches

    def handle(self, record: logging.LogRecord) -> bool:
        """Like logging's, but without its lock, which the queue does not need."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        # A mapping as the only argument has named fields, which the JSON form writes by name.
        if not isinstance(record, LogEntry):
            record.fields = record.args if isinstance(record.args, Mapping) else {}
            record.msg, record.args = record.getMessage(), None
        self._batches.put(record)


_BLANK = logging.LogRecord(log.name, logging.INFO, __file__, 0, "", None, None).__dict__
"""Every attribute that a formatter may use."""


def _emit(level: int, template: str, fields: Mapping[str, Any]) -> None:
    if log.isEnabledFor(level):
        log.handle(LogEntry(level, template, fields))


SLOW_MS: Mapping[str, int] = {"primary": 5_000, "meta": 5_000, "xai": 30_000, "enrich": 60_000}
"""From how many milliseconds on a request is logged as SLOW_REQUEST, by route."""


def is_slow(route: str, total_ms: float) -> bool:
    """Whether a request took longer than the limit of its route: ``SLOW_MS``, that of ``xai`` for any other."""
    return total_ms > SLOW_MS.get(route, SLOW_MS["xai"])


def incoming(messages: int, total_chars: int, stream: bool) -> None:
    """A request has been read and is valid."""
    _emit(
        logging.INFO,
        "Incoming request: messages=%(messages)d total_chars=%(total_chars)d stream=%(stream)s",
        {"messages": messages, "total_chars": total_chars, "stream": stream},
    )


def classified(decision: Decision) -> None:
    """The classifier answered; or failed, so that the head's guess or the default route is taken."""
    if decision.failure is not None:
        _emit(
            logging.WARNING,
            "Classification failed: %(error)s -> %(route)s, decided by %(decided_by)s",
            {"error": _one_line(decision.failure), "route": decision.route, "decided_by": decision.decided_by},
        )
    _emit(
        logging.INFO,
        "Classification completed: %(label)s -> %(route)s in %(ms)dms (finish_reason=%(finish_reason)s)",
        {
            "label": decision.label,
            "route": decision.route,
            "ms": round(decision.duration_ms or 0.0),
            "finish_reason": decision.finish_reason or "none",
        },
    )


def enriched(chars: int, duration_ms: float) -> None:
    """The web search returned a context of ``chars`` characters."""
    _emit(
        logging.INFO,
        "Enrichment context retrieved: %(chars)d chars in %(ms)dms",
        {"chars": chars, "ms": round(duration_ms)},
    )


def enrichment_failed(reason: str, duration_ms: float) -> None:
    """The web search failed; the request is answered without a web context."""
    _emit(
        logging.WARNING,
        "Enrichment failed: %(error)s after %(ms)dms, answering without web context",
        {"error": _one_line(reason), "ms": round(duration_ms)},
    )


def responded(attempt: Attempt) -> None:
    """A backend answered: with a whole answer, or with the first event of a stream."""
    fields: dict[str, Any] = {"route": attempt.backend, "status": attempt.status}
    if attempt.stream:
        fields |= {
            "connect_ms": round(attempt.connect_ms or 0),
            "ttft_ms": round(attempt.ttft_ms or 0),
            "stream": "true",
        }
    else:
        fields["duration_ms"] = round(attempt.duration_ms)
        fields |= {"finish_reason": attempt.finish_reason or "none", "stream": "false"}
    if attempt.speculative:
        fields["speculative"] = "true"
    template = f"Provider response: %(route)s {_pairs(fields, without='route')}"
    _emit(logging.INFO, template, fields)


def provider_failed(backend: str, error: str, then: str) -> None:
    """A backend failed; ``then`` says what is done next."""
    _emit(
        logging.WARNING,
        "Provider failed: %(backend)s error=%(error)s, %(then)s",
        {"backend": backend, "error": _one_line(error), "then": then},
    )


def queued(wanted: Sequence[str], position: int, expected_s: float) -> None:
    """A request waits for one of the backends ``wanted``: at which position of the queue, and about how long."""
    _emit(
        logging.INFO,
        "Queued: %(wanted)s position=%(position)d expected_ms=%(expected_ms)d",
        {"wanted": ",".join(wanted), "position": position, "expected_ms": round(expected_s * 1000)},
    )


def events_unread(backend: str, count: int) -> None:
    """A stream had ``count`` events that were no strict JSON; they were passed on unread."""
    _emit(
        logging.WARNING,
        "Provider stream: %(backend)s unread=%(unread)d events that are no strict JSON",
        {"backend": backend, "unread": count},
    )


def speculation_cancelled(route: str) -> None:
    """The decision was another ``route``, so the speculative call of the primary was aborted."""
    _emit(logging.INFO, "Cancelled speculative primary (route=%(route)s)", {"route": route})


def session_saved(session_id: str, write_ms: float, cleanup_ms: float) -> None:
    """A session file has been written."""
    _emit(
        logging.INFO,
        "Session saved: %(session)s write_ms=%(write_ms)d cleanup_ms=%(cleanup_ms)d",
        {"session": session_id, "write_ms": round(write_ms), "cleanup_ms": round(cleanup_ms)},
    )


def health_checked(status: str, duration_ms: float) -> None:
    """All backends have been checked."""
    _emit(
        logging.INFO,
        "Health check: status=%(status)s duration_ms=%(duration_ms)d",
        {"status": status, "duration_ms": round(duration_ms)},
    )


def finished(outcome: Outcome) -> None:
    """The summary of a request whose response has closed. A subscriber of outcomes."""
    ids = {"session": outcome.request.session_id, "route": outcome.route}
    timings = _timing_fields(outcome)
    fields = ids | timings
    template = f"REQUEST {_pairs(fields)}"
    _emit(logging.INFO, template, fields)
    if is_slow(outcome.route, outcome.timings["total_ms"]):
        decided_by = outcome.decision.decided_by if outcome.decision else "none"
        total_ms = timings.pop("total_ms")
        fields = ids | {"total_ms": total_ms, "decided_by": decided_by} | timings
        template = f"SLOW_REQUEST {_pairs(fields)}"
        _emit(logging.WARNING, template, fields)
    fields = {"session": outcome.request.session_id, "error": _one_line(outcome.error or "")}
    if outcome.status is Status.CANCELLED:
        _emit(logging.INFO, "Request cancelled: session=%(session)s %(error)s", fields)
    elif outcome.status is Status.ERROR:
        _emit(logging.WARNING, "Request failed: session=%(session)s %(error)s", fields)


def _pairs(fields: Mapping[str, Any], without: str = "") -> str:
    return _pairs_of(tuple(fields), without)


@functools.lru_cache(1_000)
def _pairs_of(names: tuple[str, ...], without: str) -> str:
    """``a=%(a)s b=%(b)s`` for each name but ``without``. Cached: few combinations of names occur."""
    return " ".join(f"{name}=%({name})s" for name in names if name != without)


def _timing_fields(outcome: Outcome) -> dict[str, Any]:
    """Those of classification_ms, enrichment_ms, inference_ms and total_ms that are known, then ``stream`` and, of a
    stream, ttft_ms. Times are whole milliseconds."""
    timings = outcome.timings
    names = ("classification_ms", "enrichment_ms", "inference_ms", "total_ms")
    fields: dict[str, Any] = {name: round(timings[name]) for name in names if name in timings}
    fields["stream"] = outcome.request.stream
    if outcome.request.stream and "ttft_ms" in timings:
        fields["ttft_ms"] = round(timings["ttft_ms"])
    return fields


def _one_line(text: str) -> str:
    """The first 500 characters of ``text``, on one line: text from a backend must not begin a log line of its own."""
    return " ".join(text.split())[:500]
