"""Rows into the database, behind the requests' back. A database that is stuck costs nobody but itself.

Rows that cannot be written are kept and tried again; beyond KEPT of them, and at a stop, they go to a file beside the
data, from which they are taken when the database is there again. Only a disk that fails as well loses any.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ai_router.errors import RowRefused, StoreUnavailable
from ai_router.observability.batches import Batches
from ai_router.storage.usage_rows import Rows, SpillFile

if TYPE_CHECKING:
    from ai_router.storage.usage import UsageStore

log = logging.getLogger(__name__)

PENDING_LIMIT = 20_000
_BATCH_ROWS = 500
"""Rows a transaction: whoever wants the database in between waits for one at most."""
_GATHER_S = 0.5
_RETRY_S = 5.0
_HEARTBEAT_S = 30.0
_CLEANUP_S = 3600.0
_DAY_S = 86_400.0


class Store(Protocol):
    """What is needed of stores.usage.UsageStore to write. All methods raise StoreUnavailable, ``insert`` RowRefused."""

    def insert(self, rows: Sequence[Mapping[str, Any]], egress_rows: Sequence[Mapping[str, Any]]) -> None: ...
    def record_run(self, run: str, started: float, now: float) -> None: ...
    def runs_since(self, since: float) -> Sequence[tuple[float, float]]: ...
    def forget_before(self, day: str) -> int: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Store)


def open_usage_store(url: str) -> UsageStore:
    """The store, with all tables up to date. Raises StoreUnavailable. To be called off the way of any request, and of
    the start: SQLAlchemy takes a third of a second to load."""
    from ai_router.storage.usage import UsageStore  # noqa: PLC0415 - as said

    return UsageStore(url)


class UsageWriter(Generic[S]):
    """``open_store`` raises StoreUnavailable. ``on_lost`` is told how many rows are gone for good."""

    def __init__(
        self,
        open_store: Callable[[], S],
        spill_file: SpillFile,
        *,
        keep_days: int,
        on_lost: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._open_store = open_store
        self._spill_file = spill_file
        self._keep_days = keep_days
        self._on_lost = on_lost
        self._clock = clock
        self._retry_s = retry_s
        self._store: S | None = None
        self._tried_to_open = threading.Event()
        """Set when the database is open for the first time, or the first attempt to open it has failed."""
        self.recent_runs: Sequence[tuple[float, float]] = ()
        """When processes lived in the last day, as it was known lately: (started, last seen)."""
        self.last_error: str | None = None
        """Why the last write failed; None once one has worked again."""
        self._pending: list[Rows] = []
        self._run_id = uuid.uuid4().hex
        self._started = time.time()
        self._retry_at = self._heartbeat_at = self._cleanup_at = 0.0
        self._batches = Batches(
            self._handle, name="usage-writer", limit=PENDING_LIMIT, idle_s=retry_s, gather_s=_GATHER_S
        )

    @property
    def waiting(self) -> int:
        """Rows that are neither in the database nor in the file."""
        return len(self._pending) + self._batches.waiting

    @property
    def store(self) -> S:
        """The database, for readers. Raises StoreUnavailable while it is not open."""
        if self._store is None:
            raise StoreUnavailable(self.last_error or "it is still being opened")
        return self._store

    def wait_for_store(self, timeout_s: float) -> S:
        """The database, for readers. Right after the start, wait until the first attempt to open it has ended, but no
        longer than ``timeout_s`` seconds. Raises StoreUnavailable if it is not open then."""
        if not self._tried_to_open.is_set():
            self._batches.wake()
            self._tried_to_open.wait(timeout_s)
        return self.store

    def start(self) -> None:
        """Begin to write; the database is opened there, too."""
        self._batches.start()

    def put(self, rows: Rows) -> None:
        """Take the rows of an outcome. Waits for no database."""
        if not self._batches.put(rows):
            self._spill([rows])

    def flush(self) -> None:
        """Write what is waiting now, if the database takes it."""
        self._batches.flush()

    def close(self) -> None:
        """Write what is waiting, to the file if the database does not take it, and stop."""
        self._retry_at = 0.0
        unhandled = self._batches.close()
        # The thread may hang in a write; its rows are still in the list then, and have ids that do not count twice.
        self._spill([*self._pending, *unhandled])
        if self._store is not None and not self._batches.stuck:
            self._store.close()

    def _handle(self, rows: Sequence[Rows]) -> None:
        self._pending.extend(rows)
        if self._clock() >= self._retry_at:
            try:
                self._write_pending()
            except StoreUnavailable as error:
                self._note_failure(error.detail)
            except Exception as error:  # whatever it is, the rows are kept, within their limit
                log.exception("usage could not be written")
                self._note_failure(type(error).__name__)
        if len(self._pending) > PENDING_LIMIT:
            self._spill(self._pending)
            self._pending.clear()

    def _write_pending(self) -> None:
        store = self._store = self._store or self._open_store()
        self._tried_to_open.set()
        self._maintain(store)
        while self._pending:
            batch = self._pending[:_BATCH_ROWS]
            self._insert(store, batch)
            del self._pending[: len(batch)]
        self._reload_spilled(store)
        if self.last_error is not None:
            log.info("Usage: the database takes rows again")
        self.last_error = None

    def _reload_spilled(self, store: S) -> None:
        try:
            self._count_lost(self._spill_file.take(lambda rows: self._insert(store, rows)), "not readable")
        except OSError as error:
            log.warning("Usage: rows put aside cannot be read: %s", error.strerror)

    def _insert(self, store: S, rows: Sequence[Rows]) -> None:
        """All of them but those that the database will never take: one bad row must not keep the others out."""
        if not rows:
            return
        try:
            store.insert([each.request for each in rows], [row for each in rows for row in each.egress_rows])
        except RowRefused as error:
            if len(rows) == 1:
                self._count_lost(1, str(error))
                return
            middle = len(rows) // 2
            self._insert(store, rows[:middle])
            self._insert(store, rows[middle:])

    def _count_lost(self, count: int, reason: str) -> None:
        if count:
            log.warning("Usage lost: %d rows, %s", count, reason)
            self._on_lost(count)

    def _maintain(self, store: S) -> None:
        now = self._clock()
        if now >= self._heartbeat_at:
            store.record_run(self._run_id, self._started, time.time())
            self.recent_runs = store.runs_since(time.time() - _DAY_S)
            self._heartbeat_at = now + _HEARTBEAT_S
        if now >= self._cleanup_at:
            store.forget_before(f"{datetime.now(UTC) - timedelta(days=self._keep_days):%Y-%m-%d}")
            self._cleanup_at = now + _CLEANUP_S

    def _note_failure(self, reason: str) -> None:
        self._retry_at = self._clock() + self._retry_s
        if self.last_error != reason:
            log.warning("Usage not saved yet: %s; %d rows wait", reason, len(self._pending))
        self.last_error = reason
        self._tried_to_open.set()

    def _spill(self, rows: Sequence[Rows]) -> None:
        if not rows:
            return
        try:
            self._spill_file.put(rows)
        except (OSError, TypeError) as error:  # TypeError: a number beyond what JSON is written with here
            self._count_lost(len(rows), str(error))
