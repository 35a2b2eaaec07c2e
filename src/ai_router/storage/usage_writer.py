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

KEPT = 20_000
_AT_ONCE = 500
"""Rows a transaction: whoever wants the database in between waits for one at most."""
_GATHER_S = 0.5
_RETRY_S = 5.0
_ALIVE_S = 30.0
_SWEEP_S = 3600.0
_DAY_S = 86_400.0


class Store(Protocol):
    """What is needed of stores.usage.UsageStore to write. All methods raise StoreUnavailable, ``insert`` RowRefused."""

    def insert(self, rows: Sequence[Mapping[str, Any]], exported: Sequence[Mapping[str, Any]]) -> None: ...
    def running(self, run: str, started: float, now: float) -> None: ...
    def lives(self, since: float) -> Sequence[tuple[float, float]]: ...
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
        self.problem: str | None = None
        """Why the last write failed; None once one has worked again."""
        self._kept: list[Rows] = []
        self._run = uuid.uuid4().hex
        self._started = time.time()
        self._retry_at = self._alive_at = self._sweep_at = 0.0
        self._batches = Batches(self._take, name="usage-writer", limit=KEPT, idle_s=retry_s, gather_s=_GATHER_S)

    @property
    def waiting(self) -> int:
        """Rows that are neither in the database nor in the file."""
        return len(self._kept) + self._batches.waiting

    @property
    def store(self) -> S:
        """The database, for readers. Raises StoreUnavailable while it is not open."""
        if self._store is None:
            raise StoreUnavailable(self.problem or "it is still being opened")
        return self._store

    def wait_for_store(self, patience_s: float) -> S:
        """The database, for readers. Right after the start, wait until the first attempt to open it has ended, but no
        longer than ``patience_s`` seconds. Raises StoreUnavailable if it is not open then."""
        if not self._tried_to_open.is_set():
            self._batches.wake()
            self._tried_to_open.wait(patience_s)
        return self.store

    def start(self) -> None:
        """Begin to write; the database is opened there, too."""
        self._batches.start()

    def put(self, rows: Rows) -> None:
        """Take the rows of an outcome. Waits for no database."""
        if not self._batches.put(rows):
            self._put_aside([rows])

    def flush(self) -> None:
        """Write what is waiting now, if the database takes it."""
        self._batches.flush()

    def close(self) -> None:
        """Write what is waiting, to the file if the database does not take it, and stop."""
        self._retry_at = 0.0
        left = self._batches.close()
        # The thread may hang in a write; its rows are still in the list then, and have ids that do not count twice.
        self._put_aside([*self._kept, *left])
        if self._store is not None and not self._batches.stuck:
            self._store.close()

    def _take(self, rows: Sequence[Rows]) -> None:
        self._kept.extend(rows)
        if self._clock() >= self._retry_at:
            try:
                self._work()
            except StoreUnavailable as problem:
                self._failed(problem.detail)
            except Exception as problem:  # whatever it is, the rows are kept, within their limit
                log.exception("usage could not be written")
                self._failed(type(problem).__name__)
        if len(self._kept) > KEPT:
            self._put_aside(self._kept)
            self._kept.clear()

    def _work(self) -> None:
        store = self._store = self._store or self._open_store()
        self._tried_to_open.set()
        self._keep_house(store)
        while self._kept:
            batch = self._kept[:_AT_ONCE]
            self._insert(store, batch)
            del self._kept[: len(batch)]
        self._take_back(store)
        if self.problem is not None:
            log.info("Usage: the database takes rows again")
        self.problem = None

    def _take_back(self, store: S) -> None:
        try:
            self._lose(self._spill_file.take(lambda rows: self._insert(store, rows)), "not readable")
        except OSError as problem:
            log.warning("Usage: rows put aside cannot be read: %s", problem.strerror)

    def _insert(self, store: S, rows: Sequence[Rows]) -> None:
        """All of them but those that the database will never take: one bad row must not keep the others out."""
        if not rows:
            return
        try:
            store.insert([row.request for row in rows], [row for one in rows for row in one.exported])
        except RowRefused as problem:
            if len(rows) == 1:
                self._lose(1, str(problem))
                return
            middle = len(rows) // 2
            self._insert(store, rows[:middle])
            self._insert(store, rows[middle:])

    def _lose(self, count: int, why: str) -> None:
        if count:
            log.warning("Usage lost: %d rows, %s", count, why)
            self._on_lost(count)

    def _keep_house(self, store: S) -> None:
        now = self._clock()
        if now >= self._alive_at:
            store.running(self._run, self._started, time.time())
            self.recent_runs = store.lives(time.time() - _DAY_S)
            self._alive_at = now + _ALIVE_S
        if now >= self._sweep_at:
            store.forget_before(f"{datetime.now(UTC) - timedelta(days=self._keep_days):%Y-%m-%d}")
            self._sweep_at = now + _SWEEP_S

    def _failed(self, why: str) -> None:
        self._retry_at = self._clock() + self._retry_s
        if self.problem != why:
            log.warning("Usage not saved yet: %s; %d rows wait", why, len(self._kept))
        self.problem = why
        self._tried_to_open.set()

    def _put_aside(self, rows: Sequence[Rows]) -> None:
        if not rows:
            return
        try:
            self._spill_file.put(rows)
        except (OSError, TypeError) as problem:  # TypeError: a number beyond what JSON is written with here
            self._lose(len(rows), str(problem))
