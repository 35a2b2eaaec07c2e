"""The way to the tables of threads: opened when the first thread is asked for, and anew where the file is gone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ai_router.errors import StoreGone

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore


class OpenThreads:
    """The store of threads, opened when it is first used, and anew where its file is gone. Safe from any thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._store: ThreadStore | None = None

    def store(self) -> ThreadStore:
        """The open store. Raises StoreUnavailable."""
        with self._lock:
            store = self._store
            try:
                if store is not None:
                    store.check()
                    return store
                self._store = _open(self._url)
            except StoreGone:
                if store is not None:
                    store.close()
                # A broken file has been renamed, so that this makes a new one.
                self._store = _open(self._url)
            return self._store

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None


def _open(url: str) -> ThreadStore:
    from ai_router.storage.threads import ThreadStore  # noqa: PLC0415 - slow to load

    return ThreadStore(url)
