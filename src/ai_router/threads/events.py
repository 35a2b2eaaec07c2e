"""What the events and rows of a thread's answers say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from ai_router.dispatch.citations import sources_of
from ai_router.dispatch.record import RequestRecord
from ai_router.envelope import envelope
from ai_router.errors import RouterError, ShuttingDown
from ai_router.http.sse import Event
from ai_router.routing.shown_ask import shown_ask
from ai_router.storage.thread_rows import CANCELLED, COMPLETE, ERROR, INTERRUPTED, Row
from ai_router.threads.answer import ThreadAnswer
from ai_router.types import Cost, Outcome, Status

_STATUS = {Status.OK: COMPLETE, Status.CANCELLED: CANCELLED, Status.ERROR: ERROR}
_REASONING = ("reasoning", "reasoning_content")


def last_event(status: str) -> str:
    """The name of a message's last event."""
    return "error" if status in (ERROR, INTERRUPTED) else "done"


def decision_json(record: RequestRecord) -> Mapping[str, Any]:
    """What is known of a request's way when its answer begins, or has to wait."""
    decision = record.decision
    if decision is None:
        return {"route": record.route}
    return {
        "route": record.route,
        "model": record.model,
        "label": decision.label,
        "decided_by": decision.decided_by,
        "confidence": decision.confidence,
        "reason": record.reason,
        "ask": shown_ask(decision, record.scrub),
        "speculation": record.speculation,
        "warning": record.warning or None,
    }


def message_values(
    outcome: Outcome,
    cost: Cost,
    problem: RouterError | None,
    citations: Sequence[Any],
    scrub: Callable[[str], str] = str,
) -> dict[str, Any]:
    """The values of an answer that has ended, for its row and its last event."""
    message, decision, usage = outcome.response or {}, outcome.decision, cost.usage
    status = INTERRUPTED if outcome.error_code == ShuttingDown.code else _STATUS[outcome.status]
    error = None
    if outcome.error is not None:
        error = (
            envelope(problem)["error"]
            if problem is not None
            else {"message": outcome.error, "type": "server_error", "param": None, "code": outcome.error_code}
        )
    return {
        "status": status,
        "content": message.get("content") or "",
        "reasoning": next((message[name] for name in _REASONING if message.get(name)), ""),
        "error": error,
        "details": {
            "route": outcome.route,
            "model": outcome.model,
            "backend": outcome.attempts[-1].backend if outcome.attempts else None,
            "label": decision.label if decision else None,
            "decided_by": decision.decided_by if decision else None,
            "confidence": decision.confidence if decision else None,
            "reason": outcome.reason,
            "ask": shown_ask(decision, scrub) if decision else "",
            "speculation": outcome.speculation,
            "finish_reason": message.get("finish_reason"),
            "tool_calls": message.get("tool_calls"),
            "citations": list(citations) or sources_of(outcome.steps) or None,
            "ttft_ms": outcome.timings.get("ttft_ms"),
            "total_ms": outcome.timings["total_ms"],
            "parts": dict(outcome.parts),
            "input_tokens": usage.input if usage else None,
            "output_tokens": usage.output if usage else None,
            "tokens_estimated": usage.estimated if usage else None,
            "cost_usd": cost.usd,
            "known_cost_usd": cost.known_usd,
        },
    }


def publish_event(answer: ThreadAnswer, event: Event, record: RequestRecord, citations: list[Any]) -> None:
    """Pass an event of the reply on: a comment as a notice, a chunk as a delta."""
    if event.data is None:
        notice = " ".join(line[1:].strip() for line in event.raw.decode("utf-8", "replace").splitlines() if line)
        if notice:
            answer.publish("notice", {"text": notice, "phase": record.phase, **_queue_json(record)})
        return
    try:
        chunk = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return  # [DONE], or what no strict parser can read
    if not isinstance(chunk, dict):
        return
    if isinstance(found := chunk.get("citations"), list):
        citations[:] = found
    if said := _said(chunk):
        answer.publish("delta", said)


def _queue_json(record: RequestRecord) -> Mapping[str, Any]:
    """Where in the queue the request is, and how many seconds the wait may take; nothing while it does not wait."""
    if record.ticket is None:
        return {}
    position, seconds = record.ticket.estimate()
    return {"waiting_for": list(record.ticket.wanted), "position": position, "seconds": round(seconds, 1)}


def _said(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the first choice of a chunk adds to the answer."""
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = first.get("delta") if isinstance(first, dict) else None
    if not isinstance(delta, dict):
        return {}
    reasoning = next((delta[name] for name in _REASONING if isinstance(delta.get(name), str)), "")
    content = delta.get("content")
    said = {"content": content if isinstance(content, str) else "", "reasoning": reasoning}
    told: dict[str, Any] = {name: text for name, text in said.items() if text}
    if delta.get("tool_calls"):
        told["tool_calls"] = delta["tool_calls"]
    return told


def rows_as_messages(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The conversation so far, for a backend: what was said by both sides, without answers that say nothing."""
    return [{"role": row["role"], "content": row["content"]} for row in rows if row["content"]]
