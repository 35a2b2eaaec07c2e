"""The database of usage: its tables, and opening it: a SQLite file of ours or what DATABASE_URL names.

The tables are as they are today. migrations/ is how they came to be; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from ai_router.errors import StoreUnavailable

REVISION = "0001"
"""The last of migrations/versions."""

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Float, nullable=False),  # seconds since 1970
    Column("day", String(10), nullable=False),  # UTC
    Column("session_id", String(64), nullable=False),
    Column("client", String(64), nullable=False),  # which key, never the key
    Column("organization", String(64), nullable=False),
    Column("route", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("decided_by", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("failed", Boolean, nullable=False),  # an error that is not the client's own
    Column("stream", Boolean, nullable=False),
    Column("local", Boolean, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("usage_estimated", Boolean, nullable=False),
    Column("cost_usd", Float, nullable=False),  # as far as it is known
    Column("cost_unknown", Boolean, nullable=False),  # whether that is not all
    Column("cost_basis", String(64), nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("baseline_usd", Float, nullable=True),
    Column("ttft_ms", Float, nullable=True),
    Column("total_ms", Float, nullable=False),
    Column("cancel_ms", Float, nullable=True),
    Index("requests_day", "day"),
    Index("requests_at", "at"),
)

egress = Table(
    "egress",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("day", String(10), nullable=False),
    Column("client", String(64), nullable=False),
    Column("organization", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes_sent", BigInteger, nullable=False),
    Column("bytes_received", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=True),
    Column("output_tokens", BigInteger, nullable=True),
    Column("cost_usd", Float, nullable=True),
    Index("egress_day", "day"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("started", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Index("runs_seen", "seen"),
)


_LOCK_TIMEOUT_S = 5
"""For a lock that another process holds, and for a server to take a connection."""
_STATEMENT_TIMEOUT_S = 10
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK_KEY = 4_153_205_714
"""Any number: replicas that start together bring the tables up to date one after the other."""


def open_database(url: str) -> Engine:
    """The engine, with all tables as this version wants them. Raises SQLAlchemyError, ImportError or OSError."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            path = Path(parsed.database)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        engine = create_engine(parsed, connect_args={"timeout": _LOCK_TIMEOUT_S})
        event.listen(engine, "connect", _configure_sqlite)
    else:
        options = f"-c statement_timeout={_STATEMENT_TIMEOUT_S * 1000} -c lock_timeout={_LOCK_TIMEOUT_S * 1000}"
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args={
                "connect_timeout": _LOCK_TIMEOUT_S,
                "options": options,
                "application_name": "ai-router",
                # A server that is gone without a word: noticed by us, since its own limits went with it.
                "tcp_user_timeout": _STATEMENT_TIMEOUT_S * 1000,
                "keepalives_idle": _STATEMENT_TIMEOUT_S,
                "keepalives_interval": _LOCK_TIMEOUT_S,
                "keepalives_count": 2,
            },
            pool_size=2,
            max_overflow=4,
            pool_timeout=_LOCK_TIMEOUT_S,
            pool_pre_ping=True,
        )
    try:
        _upgrade(engine)
    except (SQLAlchemyError, StoreUnavailable):
        engine.dispose()
        raise
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers and the writer do not wait for each other; a power cut may cost the last rows, never the file.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _upgrade(engine: Engine) -> None:
    with engine.connect() as connection:
        if _revision(connection) == REVISION:
            return
    # A fifth of a second, once in a database's life.
    from alembic import command  # noqa: PLC0415 - as said
    from alembic.config import Config  # noqa: PLC0415 - as said
    from alembic.util import CommandError  # noqa: PLC0415 - as said

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection, _migration_lock(connection):
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:  # tables of a later version than this
            raise StoreUnavailable(f"its tables are not of this version: {error}") from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _migration_lock(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK_KEY})
    else:
        # The write lock, before anything is read: another process would otherwise make the same tables meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield
