"""The virtual keys as this process knows them: all of them in memory, read anew when any has changed.

The database is asked every REFRESH_S whether a key has changed, so that a revoked one is good for a few seconds more at
most, in each process. While the database is away what is known stays good for STALE_S.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ai_router.errors import StoreUnavailable
from ai_router.storage.key_rows import KeyRow
from ai_router.storage.lazy_store import LazyStore
from ai_router.virtual_key import SECRET_PREFIX, VirtualKey, digest_of

if TYPE_CHECKING:
    from ai_router.storage.keys import KeyStore

log = logging.getLogger(__name__)

REFRESH_S = 2.0
STALE_S = 60.0
_FIRST_S = 10.0
"""How long a request waits for the first reading."""
_PREFIX = SECRET_PREFIX.encode()


class KeyDirectory:
    """Finds keys by their secrets. ``open_store``: the database. ``clock``: monotonic seconds; ``now``: since 1970.

    Safe from any thread.
    """

    def __init__(
        self,
        open_store: LazyStore[KeyStore],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._open_store = open_store
        self._clock = clock
        self._now = now
        self._rows: Mapping[str, KeyRow] = {}
        """By the digests of their secrets, old ones included. Replaced as a whole."""
        self._keys: Mapping[str, VirtualKey] = {}
        self._version: tuple[int, int] | None = None
        self._read_at = 0.0
        self._tried = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh_repeatedly, name="keys", daemon=True)
        self.last_error: str | None = None
        """Why the last reading failed; None: it has not."""

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._open_store.close()

    def may_be_known(self, secret: bytes) -> bool:
        """Whether ``find`` could find a key, or say that it does not know. Returns at once."""
        return secret.startswith(_PREFIX) and (self._is_stale() or self._row_of(secret) is not None)

    def find(self, secret: bytes) -> VirtualKey | None:
        """The key with this secret; None: there is none, or it has expired or was revoked. Waits for the first reading.

        Raises StoreUnavailable if what is known is too old.
        """
        if not secret.startswith(_PREFIX):
            return None
        if not self._tried.is_set():
            self._tried.wait(_FIRST_S)
        if self._is_stale():
            raise StoreUnavailable(self.last_error or "the keys have not been read yet")
        row = self._row_of(secret)
        return None if row is None else row.key

    def key(self, key_id: str) -> VirtualKey | None:
        """The key of that id; None: there is none any more."""
        return self._keys.get(key_id)

    def refresh(self) -> None:
        """Read the keys, if any has changed. Raises StoreUnavailable."""
        store = self._open_store.store()
        version, begun = store.version(), self._clock()
        if version != self._version:
            rows = store.all(revoked=False)
            self._keys = {row.key.id: row.key for row in rows}
            self._rows = {digest: row for row in rows for digest in (row.digest, row.old_digest) if digest is not None}
            self._version = version
        self._read_at = begun

    def _row_of(self, secret: bytes) -> KeyRow | None:
        digest, now = digest_of(secret), self._now()
        row = self._rows.get(digest)
        if row is None or (row.key.expires_at is not None and row.key.expires_at <= now):
            return None
        is_old = digest != row.digest
        return None if is_old and (row.old_until is None or row.old_until <= now) else row

    def _is_stale(self) -> bool:
        return self._version is None or self._clock() - self._read_at > STALE_S

    def _refresh_repeatedly(self) -> None:
        while True:
            self._note(self._problem())
            self._tried.set()
            if self._stop.wait(REFRESH_S):
                return

    def _problem(self) -> str | None:
        """Read; why that failed, if it did."""
        try:
            self.refresh()
        except StoreUnavailable as error:
            return error.detail
        except Exception as error:  # at the edge of a background thread: it goes on, and says what is wrong
            log.exception("keys could not be read")
            return type(error).__name__
        return None

    def _note(self, problem: str | None) -> None:
        if problem is not None and self.last_error is None:
            log.warning("Keys cannot be read; those that are known are good for %g s: %s", STALE_S, problem)
        elif problem is None and self.last_error is not None:
            log.info("Keys: the database answers again")
        self.last_error = problem
