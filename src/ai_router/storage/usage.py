"""The database of usage: writes rows, sums them up for GET /api/usage, and reads them back after a start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    case,
    cast,
    delete,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from ai_router.storage.store import Store
from ai_router.storage.tables import egress, requests, runs
from ai_router.types import Purpose

Row = Mapping[str, Any]
"""The values of a row by the names of its columns."""

WINDOW_COLUMNS = (
    *("at", "route", "model", "status", "failed", "cost_unknown", "retries", "input_tokens", "output_tokens"),
    *("cost_usd", "gpu_seconds", "total_ms", "ttft_ms", "cancel_ms"),
)
"""What observability.windows reads of a row."""


IN_DOUBT_BELOW = 0.8
"""A decision is in doubt if its confidence is less than that, or not known."""
_NO_DECISION = ("", "explicit", "meta", "conversation")
"""What the router did not decide anew: the client named a model, a chat UI asked for itself, a tool loop goes on."""


class UsageStore(Store):
    """An open database. Its methods may be called from any thread; all raise StoreUnavailable if it does not answer."""

    def __init__(self, url: str) -> None:
        """Open the database at ``url`` (of SQLAlchemy) and bring its tables up to date. A SQLite file that is broken is
        renamed, and StoreGone raised: the next try begins a new one."""
        super().__init__(url)
        insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        self._inserts = {table: insert(table).on_conflict_do_nothing() for table in (requests, egress, runs)}

    def insert(self, rows: Sequence[Row], egress_rows: Sequence[Row]) -> None:
        """Write rows of the tables ``requests`` and ``egress``, all or none. A row whose id is there already is left as
        it is, so that rows may be written twice. Raises RowRefused for values that the database can never take."""
        with self.begin() as connection:
            for table, new in ((requests, rows), (egress, egress_rows)):
                if new:
                    connection.execute(self._inserts[table], list(new))
        self.check()  # else these rows may have gone into a file that nobody finds

    def totals(self, since: str, until: str, client: str | None, by: Sequence[str]) -> list[Row]:
        """Sums of requests, a row for each combination of values of the columns ``by``, sorted by them; without
        columns one row.

        ``since`` and ``until``: days in UTC (2026-11-22), both included. ``client``: whose requests; None: everyone's.
        """
        columns = [requests.c[name] for name in by]
        query: Select[Any] = select(*columns, *_sums()).where(_within(requests, since, until, client))
        if columns:
            query = query.group_by(*columns).order_by(*columns)
        return self._rows(query)

    def egress_totals(self, since: str, until: str, client: str | None) -> list[Row]:
        """Sums of the calls that left the local network: a row for each backend, model and purpose. Parameters as for
        ``totals``."""
        key = [egress.c.backend, egress.c.model, egress.c.purpose]
        sums = [
            func.count().label("calls"),
            *(
                cast(func.coalesce(func.sum(egress.c[name]), 0), BigInteger).label(name)
                for name in ("bytes_sent", "bytes_received", "input_tokens", "output_tokens")
            ),
            func.sum(egress.c.cost_usd).label("cost_usd"),
            cast(func.sum(case((egress.c.cost_usd.is_(None), 1), else_=0)), BigInteger).label("cost_unknown"),
        ]
        return self._rows(
            select(*key, *sums).where(_within(egress, since, until, client)).group_by(*key).order_by(*key)
        )

    def spent(self, client: str, since: str, until: str) -> float:
        """What the budgets of a client's requests were charged between two days in UTC, both included; of requests for
        which nothing was reserved, what clouds have charged, as far as known.

        What it cost to judge their answers is the owner's to pay, who wanted to know."""
        of_owner = (Purpose.SHADOW, Purpose.JUDGEMENT)
        charged = select(func.sum(requests.c.charged_usd)).where(_within(requests, since, until, client))
        others = (
            select(func.sum(egress.c.cost_usd))
            .outerjoin(requests, requests.c.id == egress.c.request)
            .where(_within(egress, since, until, client), egress.c.purpose.not_in(of_owner))
            .where(requests.c.charged_usd.is_(None))
        )
        with self.begin() as connection:
            return float(sum(connection.execute(query).scalar() or 0.0 for query in (charged, others)))

    def egress_calls(self, client: str | None, limit: int, before: str | None) -> list[Row]:
        """The newest calls that left the local network, each with the session and the route of its request. ``before``:
        only those whose ``id`` is less, which begins with the time."""
        named = [requests.c[name] for name in ("session_id", "route", "status")]
        query = select(egress, *named).outerjoin(requests, requests.c.id == egress.c.request)
        if client is not None:
            query = query.where(egress.c.client == client)
        if before is not None:
            query = query.where(egress.c.id < before)
        return self._rows(query.order_by(egress.c.id.desc()).limit(limit))

    def since(self, start: float, limit: int) -> list[Row]:
        """The newest ``limit`` requests since ``start`` (seconds since 1970), newest first, with ``WINDOW_COLUMNS``."""
        columns = [requests.c[name] for name in WINDOW_COLUMNS]
        query = select(*columns).where(requests.c.at >= start).order_by(requests.c.at.desc()).limit(limit)
        return self._rows(query)

    def record_run(self, run: str, started: float, now: float) -> None:
        """Note that the process with the id ``run`` runs: when it started and that it does so ``now``, in seconds since
        1970."""
        with self.begin() as connection:
            changed = connection.execute(update(runs).where(runs.c.id == run).values(seen=now))
            if not changed.rowcount:
                connection.execute(self._inserts[runs], [{"id": run, "started": started, "seen": now}])

    def runs_since(self, since: float) -> list[tuple[float, float]]:
        """When each process that was seen after ``since`` started and was last seen, sorted by start. All times in
        seconds since 1970."""
        query = select(runs.c.started, runs.c.seen).where(runs.c.seen >= since).order_by(runs.c.started)
        return [(row["started"], row["seen"]) for row in self._rows(query)]

    def forget_before(self, day: str) -> int:
        """Delete rows before ``day`` (UTC, 2026-11-22); returns how many rows of requests and egress that were."""
        with self.begin() as connection:
            deleted = [
                connection.execute(delete(table).where(table.c.day < day)).rowcount for table in (requests, egress)
            ]
            oldest = datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()
            connection.execute(delete(runs).where(runs.c.seen < oldest))
        return sum(deleted)

    def _rows(self, query: Select[Any]) -> list[Row]:
        with self.begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _within(table: Table, since: str, until: str, client: str | None) -> ColumnElement[bool]:
    days = and_(table.c.day >= since, table.c.day <= until)
    return days if client is None else and_(days, table.c.client == client)


def _sums() -> Iterable[ColumnElement[Any]]:
    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return cast(func.coalesce(func.sum(case((condition, 1), else_=0)), 0), BigInteger)

    yield func.count().label("requests")
    yield count(requests.c.status == "error").label("errors")
    yield count(requests.c.failed).label("failed")
    yield count(requests.c.status == "cancelled").label("cancelled")
    for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"):
        yield cast(func.coalesce(func.sum(requests.c[name]), 0), BigInteger).label(name)
    yield count(requests.c.usage_estimated).label("usage_estimated")
    yield func.coalesce(func.sum(requests.c.cost_usd), 0.0).label("cost_usd")
    yield count(requests.c.cost_unknown).label("cost_unknown")
    yield func.coalesce(func.sum(requests.c.gpu_seconds), 0.0).label("gpu_seconds")
    answered = requests.c.status == "ok"
    saved_by_local = case(
        (
            # What is not known of a cost may be more than was saved.
            and_(requests.c.local, not_(requests.c.cost_unknown), requests.c.baseline_usd > requests.c.cost_usd),
            requests.c.baseline_usd - requests.c.cost_usd,
        ),
        else_=0.0,
    )
    yield count(answered).label("answered")
    yield count(and_(answered, requests.c.local)).label("answered_locally")
    yield count(and_(answered, requests.c.local_only)).label("kept_home")
    decided = requests.c.decided_by.not_in(_NO_DECISION)
    unsure = or_(requests.c.confidence < IN_DOUBT_BELOW, requests.c.confidence.is_(None))
    yield count(decided).label("decided")
    yield count(and_(decided, unsure)).label("in_doubt")
    yield func.coalesce(func.sum(saved_by_local), 0.0).label("saved_usd")
