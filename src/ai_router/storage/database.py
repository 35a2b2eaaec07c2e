"""The database: how it is opened and brought up to date.

It is a SQLite file in DATA_DIR, or the PostgreSQL database that DATABASE_URL names. tables.py has the tables of this
version; migrations/ brings those of any earlier version up to it. A test compares the two.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from ai_router.errors import StoreUnavailable
from ai_router.storage.tables import metadata

REVISION = "0010"
"""The newest of migrations/versions."""

_LOCK_TIMEOUT_S = 5
"""How long to wait for a lock that another process holds, and for a server to accept a connection, in seconds."""
_LOCKED_PAUSE_S = 0.01
_STATEMENT_TIMEOUT_S = 10
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK_KEY = 4_153_205_714
"""Any number, the same in all processes: those that start together migrate one after the other."""


def path_of(url: str) -> Path | None:
    """The file of a SQLite database; None for one in memory, and for other databases. Raises SQLAlchemyError for what
    is no address of a database."""
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def open_database(url: str) -> Engine:
    """Connect to the database at ``url`` and bring its tables up to date.

    Raises StoreUnavailable for tables of a later version, SQLAlchemyError, or ImportError (no driver for such a URL).
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
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
                # Notice here that a server is gone: the limits above are kept by the server itself.
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


def _parsed(url: str) -> URL:
    # Behind sqlite:/// stands a path, in which a question mark begins no query.
    scheme, found, path = url.partition(":///")
    return URL.create(scheme, database=path) if found and scheme.startswith("sqlite") and path else make_url(url)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # WAL: readers and the writer do not wait for each other. NORMAL: a power cut may cost the last rows, not the file.
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """The first of several that open a new file makes the switch. SQLite tells the others at once that it is locked,
    whatever the timeout of the connection (https://www.sqlite.org/c3ref/busy_handler.html)."""
    end = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_LOCKED_PAUSE_S)
        else:
            return


def _upgrade(engine: Engine) -> None:
    """Bring the tables up to date: make them where there are none, migrate those of an earlier version."""
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision is None:
        revision = _create(engine)
    if revision != REVISION:
        migrate(engine)


def _create(engine: Engine) -> str | None:
    """Make all tables as they are today, unless another process was faster; the revision that there is then.

    Without alembic, which would stay in memory (11 MB) for as long as the router runs.
    """
    with engine.begin() as connection, _migration_lock(connection):
        if (revision := _revision(connection)) is None:
            metadata.create_all(connection)
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISION})
            revision = REVISION
        return revision


def migrate(engine: Engine) -> None:
    """Bring tables of an earlier version up to date, or make them step by step.

    Raises StoreUnavailable for tables of a later version.
    """
    from alembic import command  # noqa: PLC0415 - rarely needed, and a fifth of a second to load
    from alembic.config import Config  # noqa: PLC0415 - as said
    from alembic.util import CommandError  # noqa: PLC0415 - as said

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection, _migration_lock(connection):
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:  # the tables are of a later version
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
        # Take the write lock before reading the revision: else another process may make the same tables meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield
