"""The log lines of the contract, one function each, in exactly the shapes that scripts rely on (docs/operations.md)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ai_router.errors import UpstreamError
from ai_router.exchange import Attempt, Decision, Outcome, Status

log = logging.getLogger("ai_router.request")

SLOW_MS: Mapping[str, int] = {"primary": 5_000, "meta": 5_000, "xai": 30_000, "enrich": 60_000}


def incoming(messages: int, total_chars: int, stream: bool) -> None:
    """A request was read and understood."""
    log.info("Incoming request: messages=%d total_chars=%d stream=%s", messages, total_chars, stream)


def classified(decision: Decision) -> None:
    """The classifier answered, or did not and the default route stands."""
    duration_ms = decision.duration_ms or 0.0
    if decision.failure is not None:
        log.warning("Classification failed: %s -> default route %s", _line(decision.failure), decision.route)
    log.info(
        "Classification completed: %s -> %s in %dms (finish_reason=%s)",
        decision.label,
        decision.route,
        round(duration_ms),
        decision.finish_reason or "none",
    )


def enriched(chars: int, duration_ms: float) -> None:
    """The web context is here."""
    log.info("Enrichment context retrieved: %d chars in %dms", chars, round(duration_ms))


def enrichment_failed(reason: str, duration_ms: float) -> None:
    """The web context will be missing."""
    log.warning("Enrichment failed: %s after %dms, answering without web context", _line(reason), round(duration_ms))


def responded(attempt: Attempt) -> None:
    """A backend answered: whole, or with the first event of a stream."""
    suffix = " speculative=true" if attempt.speculative else ""
    if attempt.stream:
        log.info(
            "Provider response: %s status=%s connect_ms=%d ttft_ms=%d stream=true%s",
            attempt.backend,
            attempt.status,
            round(attempt.connect_ms or 0),
            round(attempt.ttft_ms or 0),
            suffix,
        )
    else:
        log.info(
            "Provider response: %s status=%s duration_ms=%d finish_reason=%s stream=false%s",
            attempt.backend,
            attempt.status,
            round(attempt.duration_ms),
            attempt.finish_reason or "none",
            suffix,
        )


def provider_failed(problem: UpstreamError, then: str) -> None:
    """A backend did not answer, and what is done about it."""
    log.warning("Provider failed: %s error=%s, %s", problem.source.backend, _line(problem.detail), then)


def queued(wanted: Sequence[str], position: int, expected_s: float) -> None:
    """A request waits until a backend takes it."""
    log.info("Queued: %s position=%d expected_ms=%d", ",".join(wanted), position, round(expected_s * 1000))


def events_skipped(backend: str, count: int) -> None:
    """A stream had events that were no JSON; the client was spared them."""
    log.warning("Provider stream: %s skipped=%d events that were no JSON", backend, count)


def speculation_cancelled(route: str) -> None:
    """The decision went to another route; the speculative answer was given up."""
    log.info("Cancelled speculative primary (route=%s)", route)


def session_saved(session_id: str, write_ms: float, cleanup_ms: float) -> None:
    """A session file is in place."""
    log.info("Session saved: %s write_ms=%d cleanup_ms=%d", session_id, round(write_ms), round(cleanup_ms))


def health_checked(status: str, duration_ms: float) -> None:
    """All backends were asked how they are."""
    log.info("Health check: status=%s duration_ms=%d", status, round(duration_ms))


def finished(outcome: Outcome) -> None:
    """The summary of a request, when its response has closed; a subscriber of outcomes."""
    fields = f"session={outcome.request.session_id} route={outcome.route}{_timing_fields(outcome)}"
    log.info("REQUEST %s", fields)
    if outcome.timings["total_ms"] > SLOW_MS.get(outcome.route, SLOW_MS["xai"]):
        total_ms = round(outcome.timings["total_ms"])
        log.warning(
            "SLOW_REQUEST session=%s route=%s total_ms=%d decided_by=%s%s",
            outcome.request.session_id,
            outcome.route,
            total_ms,
            outcome.decision.decided_by if outcome.decision else "none",
            _timing_fields(outcome, without="total_ms"),
        )
    if outcome.status is Status.CANCELLED:
        log.info("Request cancelled: session=%s %s", outcome.request.session_id, _line(outcome.error or ""))
    elif outcome.status is Status.ERROR:
        log.warning("Request failed: session=%s %s", outcome.request.session_id, _line(outcome.error or ""))


def _timing_fields(outcome: Outcome, without: str = "") -> str:
    """``classification_ms=.. enrichment_ms=.. inference_ms=.. total_ms=.. stream=..``, less what is unknown."""
    timings = outcome.timings
    names = [
        name
        for name in ("classification_ms", "enrichment_ms", "inference_ms", "total_ms")
        if name in timings and name != without
    ]
    fields = "".join(f" {name}={round(timings[name])}" for name in names) + f" stream={outcome.request.stream}"
    return (
        f"{fields} ttft_ms={round(timings['ttft_ms'])}" if outcome.request.stream and "ttft_ms" in timings else fields
    )


def _line(text: str) -> str:
    """``text`` on one line: what a backend says must not be able to write a log line of its own."""
    return " ".join(text.split())[:500]
