"""An open database, for those who read and write it: transactions, and what foreign exceptions become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
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

from ai_router.errors import StoreGone, StoreUnavailable
from ai_router.storage.database import open_database, path_of
from ai_router.storage.database_file import DatabaseFile, says_broken
from ai_router.storage.usage_rows import RowRefused


class Store:
    """An open database. Safe from any thread."""

    def __init__(self, url: str) -> None:
        """Open the database at ``url`` (of SQLAlchemy) and bring its tables up to date. A SQLite file that is broken is
        renamed, and StoreGone raised: the next try begins a new one."""
        self._file: DatabaseFile | None = None
        with self._mapped_exceptions():
            path = path_of(url)
            self._file = DatabaseFile(path) if path else None
            self.engine: Engine = open_database(url)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def check(self) -> None:
        """Raise StoreGone if the SQLite file has been deleted or replaced since it was opened."""
        if self._file is not None and self._file.is_gone():
            raise StoreGone("its file was deleted or replaced")

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end, rolled back where that raises. Raises StoreUnavailable, StoreGone where
        the file is gone, and RowRefused."""
        self.check()
        with self._mapped_exceptions(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _mapped_exceptions(self) -> Iterator[None]:
        """Turn exceptions of SQLAlchemy and of drivers into RowRefused or StoreUnavailable, with the first line of the
        driver's message: SQLAlchemy's own message repeats the statement and its values."""
        try:
            yield
        except (SQLAlchemyError, ImportError, OSError, OverflowError) as error:
            driver_error = getattr(error, "orig", None)
            message = str(driver_error or error).strip()
            reason = message.splitlines()[0] if message else type(error).__name__
            if self._file is not None and says_broken(driver_error):
                raise _set_aside(self._file, reason) from error
            if isinstance(error, (OverflowError, *_ROW_ERRORS)) and not isinstance(error, _DATABASE_ERRORS):
                raise RowRefused(reason) from error
            raise StoreUnavailable(reason) from error


_ROW_ERRORS = (DataError, IntegrityError, CompileError, StatementError)
"""Raised for values that a column cannot take. Every error of a driver is a StatementError, too: see below."""
_DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError, ProgrammingError)
"""Raised for reasons that no row is to blame for."""


def _set_aside(file: DatabaseFile, reason: str) -> StoreUnavailable:
    """Rename a broken database; the error to raise."""
    try:
        aside = file.set_aside()
    except OSError as error:
        return StoreUnavailable(f"{reason}, and it cannot be renamed: {error.strerror}")
    return StoreGone(f"{reason}; it is kept as {aside.name}" if aside else reason)
