"""Opening the database, a SQLite file of ours or what DATABASE_URL names, and bringing its tables up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from ai_router.errors import StoreUnavailable
from ai_router.storage.tables import REVISION

_WAIT_S = 5
"""For a lock that another process holds, and for a server to take a connection."""
_STATEMENT_S = 10
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 4_153_205_714
"""Any number: replicas that start together bring the tables up to date one after the other."""


def open_database(url: str) -> Engine:
    """The engine, with all tables as this version wants them. Raises SQLAlchemyError, ImportError or OSError."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            path = Path(parsed.database)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        engine = create_engine(parsed, connect_args={"timeout": _WAIT_S})
        event.listen(engine, "connect", _configure_sqlite)
    else:
        options = f"-c statement_timeout={_STATEMENT_S * 1000} -c lock_timeout={_WAIT_S * 1000}"
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args={
                "connect_timeout": _WAIT_S,
                "options": options,
                "application_name": "ai-router",
                # A server that is gone without a word: noticed by us, since its own limits went with it.
                "tcp_user_timeout": _STATEMENT_S * 1000,
                "keepalives_idle": _STATEMENT_S,
                "keepalives_interval": _WAIT_S,
                "keepalives_count": 2,
            },
            pool_size=2,
            max_overflow=4,
            pool_timeout=_WAIT_S,
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
    with engine.begin() as connection, _alone(connection):
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as problem:  # tables of a later version than this
            raise StoreUnavailable(f"its tables are not of this version: {problem}") from problem


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    else:
        # The write lock, before anything is read: another process would otherwise make the same tables meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield
