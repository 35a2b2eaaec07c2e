"""Rows of usage: written in batches, summed up for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Engine, Select, Table, and_, case, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    CompileError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)

from ai_router.errors import RowRefused, StoreUnavailable
from ai_router.storage.database import egress, open_database, requests, runs

Row = Mapping[str, Any]


WINDOW_COLUMNS = (
    *("at", "route", "model", "status", "failed", "cost_unknown", "retries", "input_tokens", "output_tokens"),
    *("cost_usd", "gpu_seconds", "total_ms", "ttft_ms", "cancel_ms"),
)


class UsageStore:
    """All methods raise StoreUnavailable."""

    def __init__(self, url: str) -> None:
        with _map_exceptions():
            self._engine: Engine = open_database(url)
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        self._inserts = {table: insert(table).on_conflict_do_nothing() for table in (requests, egress, runs)}

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def insert(self, rows: Sequence[Row], egress_rows: Sequence[Row]) -> None:
        """Write rows, all or none; those that are there already are left as they are."""
        with _map_exceptions(), self._engine.begin() as connection:
            for table, new in ((requests, rows), (egress, egress_rows)):
                if new:
                    connection.execute(self._inserts[table], list(new))

    def totals(self, since: str, until: str, client: str | None, by: Sequence[str]) -> list[Row]:
        """Sums of requests for each combination of the columns ``by``, in their order; none: one row.

        Days in UTC from ``since`` to ``until``, both included; of one client or, with None, of all.
        """
        columns = [requests.c[name] for name in by]
        query: Select[Any] = select(*columns, *_sums()).where(_within(requests, since, until, client))
        if columns:
            query = query.group_by(*columns).order_by(*columns)
        return self._rows(query)

    def egress_totals(self, since: str, until: str, client: str | None) -> list[Row]:
        """The ledger: for each cloud, model and purpose how much went there and came back, in those days."""
        key = [egress.c.backend, egress.c.model, egress.c.purpose]
        sums = [
            func.count().label("calls"),
            *(
                cast(func.coalesce(func.sum(egress.c[name]), 0), BigInteger).label(name)
                for name in ("bytes_sent", "bytes_received", "input_tokens", "output_tokens")
            ),
            func.sum(egress.c.cost_usd).label("cost_usd"),
        ]
        return self._rows(
            select(*key, *sums).where(_within(egress, since, until, client)).group_by(*key).order_by(*key)
        )

    def since(self, start: float, limit: int) -> list[Row]:
        """The newest requests since then, newest first, as far as the windows of /api/metrics want to know them."""
        columns = [requests.c[name] for name in WINDOW_COLUMNS]
        query = select(*columns).where(requests.c.at >= start).order_by(requests.c.at.desc()).limit(limit)
        return self._rows(query)

    def record_run(self, run: str, started: float, now: float) -> None:
        """Note that the process ``run`` lives."""
        with _map_exceptions(), self._engine.begin() as connection:
            changed = connection.execute(update(runs).where(runs.c.id == run).values(seen=now))
            if not changed.rowcount:
                connection.execute(self._inserts[runs], [{"id": run, "started": started, "seen": now}])

    def runs_since(self, since: float) -> list[tuple[float, float]]:
        """When processes lived, as far as that is after ``since``: (started, last seen), oldest first."""
        query = select(runs.c.started, runs.c.seen).where(runs.c.seen >= since).order_by(runs.c.started)
        return [(row["started"], row["seen"]) for row in self._rows(query)]

    def forget_before(self, day: str) -> int:
        """Delete what is older than ``day``; returns how many rows went."""
        with _map_exceptions(), self._engine.begin() as connection:
            deleted = [
                connection.execute(delete(table).where(table.c.day < day)).rowcount for table in (requests, egress)
            ]
            oldest = datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()
            connection.execute(delete(runs).where(runs.c.seen < oldest))
        return sum(deleted)

    def _rows(self, query: Select[Any]) -> list[Row]:
        with _map_exceptions(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


_ROW_ERRORS = (DataError, IntegrityError, CompileError, StatementError)
"""What the values of a row, or a row of another version, can do. All errors of drivers are StatementErrors, too."""
_DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError, ProgrammingError)


@contextmanager
def _map_exceptions() -> Iterator[None]:
    """Foreign exceptions become ours, in the driver's words: SQLAlchemy's repeat the statement and its values."""
    try:
        yield
    except (SQLAlchemyError, ImportError, OSError, OverflowError) as error:
        message = str(getattr(error, "orig", None) or error).strip()
        reason = message.splitlines()[0] if message else type(error).__name__
        if isinstance(error, (OverflowError, *_ROW_ERRORS)) and not isinstance(error, _DATABASE_ERRORS):
            raise RowRefused(reason) from error
        raise StoreUnavailable(reason) from error


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
    saved_by_local = case(
        (
            and_(requests.c.local, requests.c.baseline_usd > requests.c.cost_usd),
            requests.c.baseline_usd - requests.c.cost_usd,
        ),
        else_=0.0,
    )
    yield count(requests.c.local).label("answered_locally")
    yield func.coalesce(func.sum(saved_by_local), 0.0).label("saved_usd")
