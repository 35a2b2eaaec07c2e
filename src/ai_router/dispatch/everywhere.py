"""The requests under way in all processes of the router: cancelling them, and having those recorded that have ended.

A process knows its own (in_flight.py). Of the others' it asks: nothing is written down anywhere for each request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ai_router.dispatch.in_flight import Cancelled, InFlight
from ai_router.shared.client import SharedUnavailable
from ai_router.shared.peers import Peers

log = logging.getLogger(__name__)

_CANCEL_S = 0.5
"""How long to wait for a process that does not answer. A request is aborted long before."""
_FLUSH_S = 1.5


@dataclass(frozen=True, slots=True)
class CancelResult:
    """``requests``: those of the id. ``fresh``: they were under way; else they had been cancelled before."""

    requests: tuple[Cancelled, ...]
    fresh: bool


class InFlightEverywhere:
    """The requests under way here and at the peers. Safe from any thread."""

    def __init__(self, own: InFlight, peers: Peers) -> None:
        self._own = own
        self._peers = peers
        peers.on("cancel", self._cancel_for_another)

    def cancel(self, request_id: str, client: str | None) -> CancelResult | None:
        """Abort the requests of ``client`` (None: of anybody) with that id, wherever they are. None if there are none.

        Raises SharedUnavailable if there are none here and the others cannot be asked.
        """
        found = [self._cancel_here(request_id, client)]
        try:
            answers = self._peers.ask("cancel", {"request_id": request_id, "client": client}, _CANCEL_S)
            found += [_from_json(answer) for answer in answers]
        except SharedUnavailable:
            if found == [None]:
                raise
        results = [result for result in found if result is not None]
        fresh = [result for result in results if result.fresh]
        if not results:
            return None
        return CancelResult(tuple(one for result in fresh or results for one in result.requests), bool(fresh))

    def _cancel_here(self, request_id: str, client: str | None) -> CancelResult | None:
        found = self._own.cancel(request_id, client)
        return None if found is None else CancelResult(*found)

    def _cancel_for_another(self, payload: Mapping[str, Any]) -> Any:
        found = self._cancel_here(payload["request_id"], payload["client"])
        return None if found is None else asdict(found)


def _from_json(answer: Mapping[str, Any]) -> CancelResult:
    return CancelResult(tuple(Cancelled(**entry) for entry in answer["requests"]), answer["fresh"])


def flush_everywhere(
    flush_own: Callable[[], None], flush_for_others: Callable[[], None], peers: Peers
) -> Callable[[], None]:
    """A function that has all requests recorded that have ended, in all processes.

    ``flush_own`` does so here; ``flush_for_others`` also has written what others read from files and the database.
    """

    def flush_when_asked(_payload: object) -> bool:
        flush_for_others()
        return True

    peers.on("flush", flush_when_asked)

    def flush() -> None:
        flush_own()
        try:
            peers.ask("flush", None, _FLUSH_S)
        except SharedUnavailable:
            log.debug("what other processes have answered may not be recorded yet")

    return flush
