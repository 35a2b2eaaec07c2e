"""From an outcome to its rows in the database. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from ai_router.types import Cost, Outcome, Traffic


@dataclass(frozen=True, slots=True)
class Rows:
    """The row of a request, and one for each of its calls that left the house."""

    request: dict[str, Any]
    exported: list[dict[str, Any]] = field(default_factory=list)


def rows_of(outcome: Outcome, cost: Cost, is_local: Callable[[str], bool]) -> Rows:
    """The rows of an outcome with its cost."""
    request = outcome.request
    answer = outcome.attempts[-1] if outcome.attempts else None
    usage = cost.usage
    at = request.timestamp.timestamp()
    common = {
        "at": at,
        "day": f"{request.timestamp.astimezone(UTC):%Y-%m-%d}",
        "client": request.client,
        "organization": request.organization,
    }
    row_id = f"{int(at * 1000):x}-{request.session_id}"
    row = common | {
        "id": row_id,
        "session_id": request.session_id,
        "route": _text(outcome.route, 64),
        "backend": answer.backend if answer else "",
        "model": _text(answer.model if answer else outcome.model or "", 256),
        "decided_by": outcome.decision.decided_by if outcome.decision else "",
        "status": outcome.status,
        "error_code": _text(outcome.error_code or "", 64),
        "failed": outcome.failed,
        "stream": request.stream,
        "local": answer is not None and is_local(answer.backend),
        "retries": sum(step.kind == "retry" for step in outcome.steps),
        "input_tokens": usage.input if usage else 0,
        "output_tokens": usage.output if usage else 0,
        "cached_tokens": usage.cached if usage else 0,
        "reasoning_tokens": usage.reasoning if usage else 0,
        "usage_estimated": usage.estimated if usage else False,
        "cost_usd": cost.known_usd,
        "cost_unknown": bool(cost.unknown),
        "cost_basis": ",".join(cost.basis)[:64],
        "gpu_seconds": cost.gpu_s,
        "baseline_usd": cost.baseline_usd,
        "ttft_ms": outcome.timings.get("ttft_ms"),
        "total_ms": outcome.timings["total_ms"],
        "cancel_ms": outcome.timings.get("cancel_ms"),
    }
    left = [call for call in outcome.traffic if not is_local(call.backend)]
    return Rows(row, [_exported(row_id, common, cost, call) for call in left])


def _exported(row_id: str, common: dict[str, Any], cost: Cost, call: Traffic) -> dict[str, Any]:
    told = cost.by_call.get(call.call_number)
    return common | {
        "id": f"{row_id}-{call.call_number}",
        "request": row_id,
        "backend": call.backend,
        "model": _text(call.model, 256),
        "purpose": call.purpose,
        "bytes_sent": call.bytes_sent,
        "bytes_received": call.bytes_received,
        "input_tokens": told.usage.input if told else None,
        "output_tokens": told.usage.output if told else None,
        "cost_usd": told.usd if told else None,
    }


def _text(value: str, most: int) -> str:
    """As PostgreSQL takes it: no longer than its column, and without NUL, which a client may well name a model with."""
    return value.replace("\x00", "?")[:most]
