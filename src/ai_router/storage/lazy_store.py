"""Stores that are opened when they are first used, and anew where their file is gone.

SQLAlchemy takes a third of a second to load: who never asks for a thread need not wait for that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ai_router.errors import StoreGone

if TYPE_CHECKING:
    from ai_router.storage.feedback import FeedbackStore
    from ai_router.storage.judgements import JudgementStore
    from ai_router.storage.keys import KeyStore
    from ai_router.storage.responses import ResponseStore
    from ai_router.storage.threads import ThreadStore

log = logging.getLogger(__name__)


class Closable(Protocol):
    """What is needed of a store."""

    def check(self) -> None: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Closable)


class LazyStore(Generic[S]):
    """Safe from any thread. ``open_store`` raises StoreUnavailable, or StoreGone where a broken file was renamed."""

    def __init__(self, open_store: Callable[[], S]) -> None:
        self._open = open_store
        self._lock = threading.Lock()
        self._store: S | None = None

    def store(self) -> S:
        """The open store. Raises StoreUnavailable."""
        with self._lock:
            try:
                if self._store is not None:
                    self._store.check()
                else:
                    self._store = self._open()
            except StoreGone as problem:
                log.warning("The database is begun anew: %s", problem.detail)
                if self._store is not None:
                    self._store.close()
                self._store = self._open()
            return self._store

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None


def lazy_threads(url: str) -> LazyStore[ThreadStore]:
    """The threads in the database at ``url``."""

    def opened() -> ThreadStore:
        from ai_router.storage.threads import ThreadStore  # noqa: PLC0415 - slow to load

        return ThreadStore(url)

    return LazyStore(opened)


def lazy_feedback(url: str) -> LazyStore[FeedbackStore]:
    """The feedback in the database at ``url``."""

    def opened() -> FeedbackStore:
        from ai_router.storage.feedback import FeedbackStore  # noqa: PLC0415 - slow to load

        return FeedbackStore(url)

    return LazyStore(opened)


def lazy_responses(url: str) -> LazyStore[ResponseStore]:
    """The answers of the Responses API in the database at ``url``."""

    def opened() -> ResponseStore:
        from ai_router.storage.responses import ResponseStore  # noqa: PLC0415 - slow to load

        return ResponseStore(url)

    return LazyStore(opened)


def lazy_judgements(url: str) -> LazyStore[JudgementStore]:
    """The judgements in the database at ``url``."""

    def opened() -> JudgementStore:
        from ai_router.storage.judgements import JudgementStore  # noqa: PLC0415 - slow to load

        return JudgementStore(url)

    return LazyStore(opened)


def lazy_keys(url: str) -> LazyStore[KeyStore]:
    """The virtual keys in the database at ``url``."""

    def opened() -> KeyStore:
        from ai_router.storage.keys import KeyStore  # noqa: PLC0415 - slow to load

        return KeyStore(url)

    return LazyStore(opened)
