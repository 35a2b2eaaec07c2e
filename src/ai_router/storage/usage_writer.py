"""Writes rows of usage into the database, on a thread of its own, so that no request waits for a database.

Rows that cannot be written stay in memory and are tried again. Beyond PENDING_LIMIT of them, and at a stop, they go to
the spill file, and from there into the database when it works again. Rows are lost only if the disk fails, too.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ai_router.errors import StoreGone, StoreUnavailable
from ai_router.observability.recorder import Batches
from ai_router.storage.usage_rows import RowRefused, Rows, SpillFile

if TYPE_CHECKING:
    from ai_router.storage.usage import UsageStore

log = logging.getLogger(__name__)

PENDING_LIMIT = 20_000
"""How many requests' rows wait in memory at most."""
_BATCH_ROWS = 500
"""How many requests' rows are written in a transaction: other users of the database wait for one at most."""
_GATHER_S = 0.5
_PORTION = 20
"""Requests, whose rows are made into a statement in a millisecond."""
_RETRY_S = 5.0
_HEARTBEAT_S = 30.0
"""How often it is noted that this process runs."""
_CLEANUP_S = 3600.0
"""How often rows older than USAGE_DAYS are deleted."""
_DAY_S = 86_400.0


class UsageSink(Protocol):
    """What the writer needs of a UsageStore. All methods raise StoreUnavailable, or StoreGone where it has to be opened
    anew; ``insert`` also raises RowRefused."""

    def check(self) -> None: ...
    def insert(self, rows: Sequence[Mapping[str, Any]], egress_rows: Sequence[Mapping[str, Any]]) -> None: ...
    def record_run(self, run: str, started: float, now: float) -> None: ...
    def runs_since(self, since: float) -> Sequence[tuple[float, float]]: ...
    def forget_before(self, day: str) -> int: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=UsageSink)


def open_usage_store(url: str) -> UsageStore:
    """The database at ``url``, with all tables up to date. Raises StoreUnavailable.

    To be called on a background thread: SQLAlchemy takes a third of a second to load, which neither the start nor a
    request should wait for.
    """
    from ai_router.storage.usage import UsageStore  # noqa: PLC0415 - slow to load

    return UsageStore(url)


class UsageWriter(Generic[S]):
    """The writer. ``put``, ``flush`` and the properties may be used from any thread.

    ``open_store`` opens the database, on the writer's thread; it may raise StoreUnavailable. ``keep_days``: rows older
    than that are deleted. ``on_lost`` is called with the number of rows that were lost. ``clock``: seconds, monotonic.
    ``retry_s``: how long to wait after a failure.
    """

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
        self._tried = threading.Event()
        """Set when the database has taken what waited, or has failed to. Cleared when it has to be opened anew."""
        self.recent_runs: Sequence[tuple[float, float]] = ()
        """When processes started and were last seen, of the last day, in seconds since 1970. At most 30 s old."""
        self.last_error: str | None = None
        """Why the last attempt to open or write failed; None once one has worked."""
        self.lost = 0
        """How many requests' rows were lost since the start."""
        self.reopened = 0
        """How often the database was opened anew, because its file was deleted, replaced, or broken."""
        self._pending: list[Rows] = []
        self._run_id = uuid.uuid4().hex
        self._started = time.time()
        self._retry_at = self._heartbeat_at = self._cleanup_at = 0.0
        self._batches = Batches(
            self._handle, name="usage-writer", limit=PENDING_LIMIT, idle_s=retry_s, gather_s=_GATHER_S, portion=_PORTION
        )

    @property
    def waiting(self) -> int:
        """How many requests' rows are neither in the database nor in the spill file."""
        return len(self._pending) + self._batches.waiting

    @property
    def store(self) -> S:
        """The database, for readers. Raises StoreUnavailable if it is not open."""
        if self._store is None:
            raise StoreUnavailable(self.last_error or "it is still being opened")
        return self._store

    def wait_for_store(self, timeout_s: float) -> S:
        """The database, for readers. Right after the start, and where its file is gone: once the next attempt to open
        it has failed, or what waited is written, or after ``timeout_s`` seconds. Raises StoreUnavailable if it is not
        open then."""
        try:
            if self._store is not None:
                self._store.check()
        except StoreGone:
            self._tried.clear()
        if not self._tried.is_set():
            self._batches.wake()
            self._tried.wait(timeout_s)
        return self.store

    def start(self) -> None:
        """Start the thread, which opens the database and writes."""
        self._batches.start()

    def put(self, rows: Rows) -> None:
        """Queue the rows of a request. Never waits for the database."""
        if not self._batches.put(rows):
            self._spill([rows])

    def flush(self) -> None:
        """Write what waits now, if the database takes it within a second. To be called before usage is read."""
        self._batches.flush()

    def close(self) -> None:
        """Write what waits, into the spill file if the database does not take it, then stop."""
        self._retry_at = 0.0
        unhandled = self._batches.close()
        # If the thread hangs in a write, its rows are still pending. Written twice they count once: they have ids.
        self._spill([*self._pending, *unhandled])
        if self._store is not None and not self._batches.stuck:
            self._store.close()

    def _handle(self, rows: Sequence[Rows]) -> None:
        self._pending.extend(rows)
        if self._clock() >= self._retry_at:
            self._try_to_write()
        if len(self._pending) > PENDING_LIMIT:
            self._spill(self._pending)
            self._pending.clear()

    def _try_to_write(self) -> None:
        try:
            try:
                self._write_pending()
            except StoreGone as error:
                self._note_reopening(error.detail)
                self._write_pending()
        except StoreUnavailable as error:
            self._note_failure(error.detail)
        except Exception as error:  # at the edge of a background thread: whatever it is, the rows are kept
            log.exception("usage could not be written")
            self._note_failure(type(error).__name__)

    def _write_pending(self) -> None:
        store = self._store = self._store or self._open_store()
        store.check()
        self._maintain(store)
        while self._pending:
            batch = self._pending[:_BATCH_ROWS]
            self._insert(store, batch)
            del self._pending[: len(batch)]
        self._reload_spilled(store)
        if self.last_error is not None:
            log.info("Usage: the database takes rows again")
        self.last_error = None
        self._tried.set()

    def _reload_spilled(self, store: S) -> None:
        try:
            self._count_lost(self._spill_file.take(lambda rows: self._insert(store, rows)), "not readable")
        except OSError as error:
            log.warning("Usage: rows put aside cannot be read: %s", error.strerror)

    def _insert(self, store: S, rows: Sequence[Rows]) -> None:
        """Write all rows but those that the database refuses. They are found by halving, so that one costs no other."""
        if not rows:
            return
        try:
            new = [each.request for each in rows if each.request is not None]
            store.insert(new, [row for each in rows for row in each.egress_rows])
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
            self.lost += count
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

    def _note_reopening(self, reason: str) -> None:
        log.warning("Usage: the database is begun anew: %s", reason)
        self.reopened += 1
        self._heartbeat_at = 0.0
        if self._store is not None:
            self._store.close()
            self._store = None

    def _note_failure(self, reason: str) -> None:
        self._retry_at = self._clock() + self._retry_s
        if self.last_error != reason:
            log.warning("Usage not saved yet: %s; %d rows wait", reason, len(self._pending))
        self.last_error = reason
        self._tried.set()

    def _spill(self, rows: Sequence[Rows]) -> None:
        if not rows:
            return
        try:
            self._spill_file.put(rows)
        except (OSError, TypeError) as error:  # TypeError: a number that orjson cannot write
            self._count_lost(len(rows), str(error))
