"""Feedback in the database: what people say of decisions, with the conversation, as examples to learn from.

To be imported when it is needed: SQLAlchemy takes a third of a second to load.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, select

from ai_router.storage.store import Store
from ai_router.storage.tables import feedback

MAX_ROWS = 10_000


class FeedbackStore(Store):
    """Reads and writes feedback."""

    def add(self, values: Mapping[str, Any], keep_days: int) -> Mapping[str, Any]:
        """Keep one verdict; ``values``: of the other columns. The oldest beyond MAX_ROWS, and those older than
        ``keep_days``, are deleted."""
        now = time.time()
        today = datetime.fromtimestamp(now, UTC)
        row = {**values, "id": uuid.uuid4().hex, "at": now, "day": f"{today:%Y-%m-%d}"}
        with self.begin() as connection:
            connection.execute(insert(feedback).values(row))
            oldest_day = f"{today - timedelta(days=keep_days):%Y-%m-%d}"
            connection.execute(delete(feedback).where(feedback.c.day < oldest_day))
            beyond = select(feedback.c.at).order_by(feedback.c.at.desc()).offset(MAX_ROWS).limit(1).scalar_subquery()
            connection.execute(delete(feedback).where(feedback.c.at <= beyond))
        return row

    def all(self) -> Sequence[Mapping[str, Any]]:
        """The verdicts, oldest first. Of one request the newest counts."""
        query = select(feedback).order_by(feedback.c.at)
        with self.begin() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return list({row["session_id"]: row for row in rows}.values())
