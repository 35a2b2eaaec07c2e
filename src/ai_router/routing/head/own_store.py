"""The learned models of an owner's routes, as a running router uses them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from ai_router.routing.head.own_routes import NO_ROUTES, ROUTES_FILE, RouteModels, RoutesUnusable, unpack_routes
from ai_router.routing.head.watching import FileWatch
from ai_router.types import LabelName

log = logging.getLogger(__name__)


class OwnRoutesStore:
    """``current``: the models of the routes that the catalogue has, as far as they were learned from what it says now.

    They are in ROUTES_FILE of ``folder``; a file that changes is taken up while the router runs.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._wanted: Mapping[LabelName, str] = {}
        self._watch = FileWatch(folder / ROUTES_FILE, self._changed)
        self._learned = self._read(self._watch.exists)
        self.current: RouteModels = NO_ROUTES

    def start(self) -> None:
        """Start watching the file."""
        self._watch.start()

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def want(self, digests: Mapping[LabelName, str]) -> None:
        """The routes that there are from now on, with the digests of what they are to be learned from."""
        with self._lock:
            self._wanted = digests
            self._choose()

    def _changed(self, there: bool) -> None:
        learned = self._read(there)
        with self._lock:
            self._learned = learned
            self._choose()

    def _choose(self) -> None:
        self.current = self._learned.of(self._wanted)
        if missing := [label.lower() for label in self._wanted if label not in self.current.labels]:
            log.warning("Not learned yet, or changed since: %s ('ai-router learn' learns them)", ", ".join(missing))
        if self.current.labels:
            log.info("Fast path: knows the routes %s", ", ".join(label.lower() for label in self.current.labels))

    def _read(self, there: bool) -> RouteModels:
        if not there:
            return NO_ROUTES
        try:
            return unpack_routes(self._watch.path.read_bytes())
        except (OSError, RoutesUnusable) as problem:
            log.warning("Fast path: %s cannot be used: %s", self._watch.path, problem)
            return NO_ROUTES
