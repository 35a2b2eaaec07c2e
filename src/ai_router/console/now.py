"""The parts of the live view: requests under way, backends, and the day so far. Their values are JSON.

Each is of all processes: they ask each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ai_router.console.live import LivePart
from ai_router.dispatch.health import HealthChecker
from ai_router.dispatch.in_flight import InFlight
from ai_router.dispatch.record import RequestRecord
from ai_router.errors import StoreUnavailable
from ai_router.observability.windows import WINDOWS, cell_json, merge_cells, targets
from ai_router.providers.registry import CLASSIFIER, Registry
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.shared.all_windows import AllWindows
from ai_router.shared.client import SharedUnavailable
from ai_router.shared.peers import Peers
from ai_router.storage.usage_writer import UsageWriter
from ai_router.types import DecidedBy

if TYPE_CHECKING:
    from ai_router.storage.usage import UsageStore

_HEALTH_S = 10.0
"""How old what is known of a backend may be."""
_DATABASE_S = 5.0
"""How long to wait for the database."""
_STALE_S = 30.0
_PEERS_S = 0.3
"""How long to wait for other processes."""
_REQUESTS_EVERY_S, _BACKENDS_EVERY_S, _TODAY_EVERY_S = 0.25, 1.0, 2.0


def live_parts(
    in_flight: InFlight,
    registry: Registry,
    limiter: ConcurrencyLimiter,
    checker: HealthChecker,
    windows: AllWindows,
    usage: UsageWriter[UsageStore] | None,
    flush: Callable[[], None],
    peers: Peers,
) -> Sequence[LivePart]:
    """All parts. ``usage``: None with TELEMETRY=off; ``flush`` has all requests that have ended recorded."""
    today = Today(windows, usage, flush)
    peers.on("requests", lambda sees: requests_json(in_flight, sees))
    peers.on("calls", lambda _: {name: _calls(limiter, name) for name in limiter.names()})

    def requests(sees: str | None) -> Mapping[str, Any]:
        answers = [requests_json(in_flight, sees), *_of_peers(peers, "requests", sees)]
        return {"requests": sorted((one for each in answers for one in each), key=itemgetter("began_at"))}

    def backends(_sees: str | None) -> Mapping[str, Any]:
        return backends_json(registry, limiter, checker, _of_peers(peers, "calls", None))

    return (
        LivePart("requests", _REQUESTS_EVERY_S, requests),
        LivePart("backends", _BACKENDS_EVERY_S, backends),
        LivePart("today", _TODAY_EVERY_S, today.read),
    )


def _of_peers(peers: Peers, topic: str, payload: Any) -> Sequence[Any]:
    """What the other processes answer; nothing while they cannot be asked."""
    try:
        return peers.ask(topic, payload, _PEERS_S)
    except SharedUnavailable:
        return ()


def _calls(limiter: ConcurrencyLimiter, name: str) -> tuple[int, int]:
    """A backend's calls under way, and the requests that wait for it."""
    report = limiter.report(name)
    return report.in_flight, report.waiting


def requests_json(in_flight: InFlight, sees: str | None) -> Sequence[Mapping[str, Any]]:
    """The requests under way in this process; those that wait have their position. Without a word of what they say."""
    return [_request_json(record) for record in in_flight.records() if sees in (None, record.request.client)]


def _request_json(record: RequestRecord) -> Mapping[str, Any]:
    request, decision, ticket = record.request, record.decision, record.ticket
    waiting = None
    if ticket is not None:
        position, seconds = ticket.estimate()
        # A moment, since seconds would change with each look.
        waiting = {"for": list(ticket.wanted), "position": position, "until": round(time.time() + seconds)}
    return {
        "request_id": request.request_id,
        "session_id": request.session_id,
        "client": request.client,
        "began_at": round(request.timestamp.timestamp(), 3),
        "phase": record.phase,
        "route": record.route,
        "model": record.model,
        "label": decision.label if decision else None,
        "decided_by": decision.decided_by if decision else None,
        "speculation": record.speculation,
        "own_job_of_a_chat_ui": decision is not None and decision.decided_by is DecidedBy.META,
        "stream": request.stream,
        "waiting": waiting,
    }


def backends_json(
    registry: Registry,
    limiter: ConcurrencyLimiter,
    checker: HealthChecker,
    elsewhere: Sequence[Mapping[str, tuple[int, int]]] = (),
) -> Mapping[str, Any]:
    """All backends: the breaker, calls under way and waiting, and what the last look at their health found.

    ``elsewhere``: the calls under way and waiting of other processes, by backend.
    """
    health = checker.latest(_HEALTH_S)
    now, found = time.time(), []
    # A tier of models may have limits of its own.
    tiers = [name for name in limiter.names() if ":" in name]
    for name, backend in [(b.name, b) for b in registry.backends()] + [
        (tier, b) for b in registry.backends() for tier in tiers if tier.startswith(f"{b.name}:")
    ]:
        report, known = limiter.report(name), health.get(backend.name)
        blocked_s, _ = limiter.blocked_for(name)
        found.append(
            {
                "name": name,
                "model": backend.model,
                "local": backend.local,
                "classifier": backend.name == CLASSIFIER,
                "breaker": report.state,
                "why": report.why,
                "opens_at": round(now + blocked_s) if blocked_s > 0 else None,
                "calls": report.in_flight + sum(calls.get(name, (0, 0))[0] for calls in elsewhere),
                "waiting": report.waiting + sum(calls.get(name, (0, 0))[1] for calls in elsewhere),
                "ok": known.ok if known else None,
                "last_error": known.last_error if known else None,
            }
        )
    return {"backends": found}


_SUMS = (
    *("requests", "errors", "answered", "answered_locally", "decided", "in_doubt"),
    *("cost_usd", "cost_unknown", "saved_usd"),
)


class Today:
    """The sums of the day (UTC), from the database, and the times of the last 24 hours, from memory. Those are of all
    clients together, so that they are for whoever may see everything.

    The database is asked again when a request has ended, and else every _STALE_S seconds: other processes write, too.
    """

    def __init__(self, windows: AllWindows, usage: UsageWriter[UsageStore] | None, flush: Callable[[], None]) -> None:
        self._windows = windows
        self._usage = usage
        self._flush = flush
        self._known: dict[str | None, tuple[tuple[str, float], float, Mapping[str, Any]]] = {}
        """For each audience: the day and the number of requests when the database was asked, when that was, and what
        it said."""

    def read(self, sees: str | None) -> Mapping[str, Any]:
        """A client's own sums; the times only for ``sees`` None. Raises StoreUnavailable."""
        usage = self._usage
        if usage is None:
            raise StoreUnavailable("TELEMETRY=off", "TELEMETRY=off: no usage is kept")
        self._flush()
        day = datetime.now(UTC).date().isoformat()
        cell = merge_cells(self._windows.within(WINDOWS["24h"]).values())
        total = self._total(usage, sees, (day, cell.counts["requests"]))
        sums = {"day": day, **{name: total[name] for name in _SUMS}}
        if sees is not None:
            return sums
        times = cell_json(cell)
        return sums | {
            **{name: times[name] for name in ("ttft_ms", "latency_ms", "cancel_ms")},
            "targets": [target.report(cell) for target in targets(None) if target.name != "uptime"],
        }

    def _total(self, usage: UsageWriter[UsageStore], sees: str | None, state: tuple[str, float]) -> Mapping[str, Any]:
        known = self._known.get(sees)
        if known is not None and known[0] == state and time.monotonic() - known[1] < _STALE_S:
            return known[2]
        usage.flush()
        total = usage.wait_for_store(_DATABASE_S).totals(state[0], state[0], sees, by=())[0]
        self._known[sees] = (state, time.monotonic(), total)
        return total
