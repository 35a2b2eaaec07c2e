"""A second search, by somebody else, where the first takes unusually long; the first that finds something counts.

Searches take seconds, now and then many. A search that is given up is charged for all the same, so that few are made
twice (resilience/lateness.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from typing import Any, NamedTuple

from ai_router.dispatch.dispatcher import Waiting
from ai_router.errors import HedgeLost, UpstreamError
from ai_router.http.calls import UpstreamCall
from ai_router.resilience.lateness import Lateness

_NOTICE = "searching the web"


class Findings(NamedTuple):
    """The text that a search found, and the reported usage in the form of the Responses API; empty: none."""

    text: str
    usage: Mapping[str, Any]


class BegunSearch(NamedTuple):
    """A search on a thread of its own, and its call."""

    future: Future[Findings]
    call: UpstreamCall

    @property
    def found(self) -> bool:
        """Whether it has ended well."""
        return self._has_run and self.future.exception() is None

    @property
    def failure(self) -> UpstreamError | None:
        """What it has failed with; None: it has not, or nobody is to blame for that."""
        problem = self.future.exception() if self._has_run else None
        return problem if isinstance(problem, UpstreamError) else None

    def failed_with(self, problem: BaseException) -> bool:
        """Whether it has ended in this very exception."""
        return self._has_run and self.future.exception() is problem

    @property
    def _has_run(self) -> bool:
        return self.future.done() and not self.future.cancelled()


class FutureWait:
    """The wait for the first of some searches, until ``end`` at the latest, in monotonic seconds.

    An abort needs no notice here: it aborts the calls that the searches make.
    """

    def __init__(self, searches: Sequence[BegunSearch], end: float = float("inf")) -> None:
        self._futures = [search.future for search in searches]
        self._end = end

    def wait(self, seconds: float) -> bool:
        left_s = max(0.0, min(seconds, self._end - time.monotonic()))
        return bool(wait_for(self._futures, left_s, FIRST_COMPLETED).done) or time.monotonic() >= self._end

    def notice(self) -> str:
        return _NOTICE


def first_to_find(
    first: BegunSearch, begin_second: Callable[[], BegunSearch | None], lateness: Lateness | None
) -> Waiting[BegunSearch]:
    """The search that found something first. ``begin_second`` begins another one, if anybody else can be asked now.
    ``lateness`` None: there is no second one.

    Raises what the first search raised, if none finds anything. The one that is not needed is aborted.
    """
    started, searches = time.monotonic(), [first]
    if lateness is not None:
        lateness.began()
        late_s = lateness.late_after_s()
        if late_s is not None:
            yield FutureWait(searches, started + late_s)
            if not first.future.done() and lateness.take_second():
                if (second := begin_second()) is not None:
                    searches.append(second)
                else:
                    lateness.give_back()
    winner = yield from _first_of(searches)
    if lateness is not None:
        lateness.took(time.monotonic() - started)
    return winner


def _first_of(searches: Sequence[BegunSearch]) -> Waiting[BegunSearch]:
    running = list(searches)
    try:
        while running:
            yield FutureWait(running)
            for search in [search for search in running if search.future.done()]:
                running.remove(search)
                if search.found:
                    return search
        searches[0].future.result()
        raise RuntimeError("a search has neither found something nor failed")
    finally:
        for search in running:
            # One that still waits for a thread is never made.
            search.future.cancel()
            search.call.abort(HedgeLost("the other search was faster"))
