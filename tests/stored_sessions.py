"""Sessions as they are read back from disk."""

from __future__ import annotations

from typing import Any

from ai_router.learning.examples import StoredSession
from ai_router.types import DecidedBy, Label


def session(text: str = "hi", *, label: str = "MODERATE", route: str = "primary", **changes: Any) -> StoredSession:
    values: dict[str, Any] = {
        "session_id": "s",
        "year": 2026,
        "messages": [{"role": "user", "content": text}],
        "label": Label(label),
        "decided_by": DecidedBy.CLASSIFIER,
        "route": route,
        "stream": True,
        "status": "ok",
        "timings": {"classification_ms": 1000.0, "upstream_ms": 50.0, "ttft_ms": 1005.0, "total_ms": 2000.0},
        "cost_usd": None,
    }
    return StoredSession(**{**values, **changes})
