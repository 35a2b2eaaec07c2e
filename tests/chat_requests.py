"""Chat requests for tests of pure code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ai_router.routing.prompt import text_of
from ai_router.storage.session_logger import SessionLogger
from ai_router.types import ChatRequest, Message


def chat_request(text: str = "hello", *, messages: Sequence[Message] | None = None, **changes: Any) -> ChatRequest:
    """A plain request for ``auto``; ``changes`` are fields of ChatRequest."""
    messages = [{"role": "user", "content": text}] if messages is None else messages
    values: dict[str, Any] = {
        "request_id": "req_1",
        "session_id": "dba46d38",
        "timestamp": datetime(2026, 11, 21, 19, 56, tzinfo=UTC),
        "arrived_at": time.monotonic(),
        "model": "auto",
        "stream": False,
        "messages": messages,
        "messages_json": SessionLogger.set_query(messages),
        "params": {},
        "date_context": "",
        "total_chars": sum(len(text_of(message)) for message in messages),
    }
    return ChatRequest(**{**values, **changes})
