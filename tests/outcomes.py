"""Outcomes for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from ai_router.types import (
    Attempt,
    Cost,
    DecidedBy,
    Decision,
    Label,
    Outcome,
    Purpose,
    SpeculationResult,
    Status,
    Traffic,
    Usage,
)
from tests.chat_requests import chat_request

FREE = Cost(0.0, ("local",), usage=Usage(10, 20), gpu_s=0.5)
"""What a local answer costs where electricity has no price."""


def outcome(text: str = "hello", **changes: Any) -> Outcome:
    """A plain request that the local primary has answered; ``changes`` are fields of Outcome."""
    values: dict[str, Any] = {
        "request": chat_request(text),
        "status": Status.OK,
        "route": "primary",
        "model": "m",
        "decision": Decision(Label.MODERATE, "primary", DecidedBy.FAST, "plain", 0.9),
        "reason": "plain",
        "speculation": SpeculationResult.SKIPPED,
        "steps": (),
        "attempts": (attempt(),),
        "response": {"role": "assistant", "content": "hi", "finish_reason": "stop"},
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
        "timings": {"total_ms": 100.0, "decide_ms": 1.0},
        "parts": {"receive": 1.0, "decide": 1.0, "connect": 8.0, "ttft": 80.0, "stream": 10.0},
        "error": None,
        "traffic": (call(),),
    }
    return Outcome(**{**values, **changes})


def attempt(backend: str = "primary", model: str = "m", call_number: int = 1, **changes: Any) -> Attempt:
    """A call that gave the answer."""
    return Attempt(
        backend, model, started_ms=2.0, duration_ms=90.0, stream=False, status=200, call_number=call_number, **changes
    )


def call(backend: str = "primary", model: str = "m", call_number: int = 1, **changes: Any) -> Traffic:
    """The same, as the network saw it."""
    values: dict[str, Any] = {
        "purpose": Purpose.ANSWER,
        "bytes_sent": 100,
        "bytes_received": 200,
        "used_s": 0.5,
        "status": 200,
    }
    return Traffic(call_number=call_number, backend=backend, model=model, **{**values, **changes})
