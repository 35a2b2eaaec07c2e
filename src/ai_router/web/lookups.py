"""Looking things up on request threads, of which chats need all but a few: few at a time, and none for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ai_router.errors import Overloaded, RouterError, StoreUnavailable

T = TypeVar("T")

_AT_ONCE = 4
_PATIENCE_S = 10.0


class Lookups:
    """Shared by all that read sessions and usage."""

    def __init__(self, at_once: int = _AT_ONCE, patience_s: float = _PATIENCE_S) -> None:
        self._places = threading.Semaphore(at_once)
        self._patience_s = patience_s

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the length of the block. Raises Overloaded when there is none."""
        self._enter()
        try:
            yield
        finally:
            self._places.release()

    def of_database(self, ask: Callable[[], T]) -> T:
        """What ``ask`` returns or raises; StoreUnavailable if that takes too long. It goes on behind our back then, and
        keeps its place until it ends: a database that hangs holds a few threads, and none of those that answer."""
        self._enter()
        ended = threading.Event()
        came: list[T] = []
        failed: list[RouterError] = []

        def run() -> None:
            try:
                came.append(ask())
            except RouterError as problem:
                failed.append(problem)
            finally:
                self._places.release()
                ended.set()

        threading.Thread(target=run, name="look-up", daemon=True).start()
        if not ended.wait(self._patience_s):
            raise StoreUnavailable(f"no answer within {self._patience_s:g} s")
        if not came:
            raise failed[0] if failed else StoreUnavailable("a look-up failed; see the log")
        return came[0]

    def _enter(self) -> None:
        if not self._places.acquire(blocking=False):
            raise Overloaded("too many look-ups at once; try again in a moment")
