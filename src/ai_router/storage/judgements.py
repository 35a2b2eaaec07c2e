"""Judgements in the database: who won, what that cost, and the budget of the month, for all processes together.

To be imported when it is needed: SQLAlchemy takes a third of a second to load.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, literal, select, text, update
from sqlalchemy.sql import insert

from ai_router.storage.store import Store
from ai_router.storage.tables import judgements

_BUDGET_LOCK_KEY = 4_153_205_715
"""Any number, the same in all processes: what they reserve in a PostgreSQL is reserved one after the other."""
_UNDER_WAY_S = 3600.0
"""One that has not ended after so long never will: its process has died."""
_COLUMNS = ("id", "at", "day", "session_id", "route", "local", "cloud", "judge", "winner", "contradicted", "usd")


class JudgementStore(Store):
    """Reads and writes judgements."""

    def reserve(self, values: Mapping[str, Any], usd: float, budget_usd: float, keep_days: int) -> str | None:
        """Begin a judgement that costs ``usd`` at most. Returns its id; None: what is left of the month's budget does
        not suffice.

        ``values``: session_id, route, local, cloud and judge. A judgement that is never settled, because its process
        has died, counts with the most that it can cost. Rows older than ``keep_days`` are deleted, but none of the
        present month (UTC).
        """
        now = time.time()
        today = datetime.fromtimestamp(now, UTC)
        month = f"{today:%Y-%m}-01"
        row = {**values, "id": uuid.uuid4().hex, "at": now, "day": f"{today:%Y-%m-%d}", "winner": "", "usd": usd}
        row["contradicted"] = False
        spent = select(func.coalesce(func.sum(judgements.c.usd), 0.0)).where(judgements.c.day >= month)
        columns = [literal(row[name], judgements.c[name].type).label(name) for name in _COLUMNS]
        # One statement, which SQLite runs with the lock for writing: no other process can spend the same money.
        new = insert(judgements).from_select(
            list(_COLUMNS), select(*columns).where(spent.scalar_subquery() + usd <= budget_usd)
        )
        with self.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _BUDGET_LOCK_KEY})
            taken = connection.execute(new.returning(judgements.c.id)).first() is not None
            oldest = min(f"{today - timedelta(days=keep_days):%Y-%m-%d}", month)
            connection.execute(delete(judgements).where(judgements.c.day < oldest))
        return row["id"] if taken else None

    def settle(self, judgement: str, winner: str, *, contradicted: bool, usd: float | None) -> None:
        """End a judgement. ``usd``: what it has cost; None: nobody knows, and the most stays counted."""
        values: dict[str, Any] = {"winner": winner, "contradicted": contradicted}
        if usd is not None:
            values["usd"] = usd
        with self.begin() as connection:
            connection.execute(update(judgements).where(judgements.c.id == judgement).values(values))

    def forget(self, judgement: str) -> None:
        """Nobody was asked: it costs nothing, and may be made another time."""
        with self.begin() as connection:
            connection.execute(delete(judgements).where(judgements.c.id == judgement))

    def spent(self) -> float:
        """What the judgements of this month (UTC) have cost, or may have cost, in USD."""
        month = f"{datetime.now(UTC):%Y-%m}-01"
        query = select(func.coalesce(func.sum(judgements.c.usd), 0.0)).where(judgements.c.day >= month)
        with self.begin() as connection:
            return float(connection.execute(query).scalar_one())

    def all(self) -> Sequence[Mapping[str, Any]]:
        """The judgements that have ended, oldest first."""
        query = select(judgements).where(judgements.c.winner != "").order_by(judgements.c.at)
        with self.begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def judged(self) -> frozenset[str]:
        """The sessions whose answers were judged, or are being judged."""
        begun = time.time() - _UNDER_WAY_S
        query = select(judgements.c.session_id).where((judgements.c.winner != "") | (judgements.c.at > begun))
        with self.begin() as connection:
            return frozenset(connection.execute(query).scalars())
