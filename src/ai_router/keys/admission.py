"""Letting requests of virtual keys in, within their limits, and counting what they have used.

A request is let in with one round trip to Redis, which also looks up what other processes remember of its conversation.
One that could cost money has its most reserved with a second one, before a cloud is called. What happens at its end is
told by a thread. While Redis cannot be reached each process keeps to its share of the limits, and no money is spent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ai_router.errors import StoreUnavailable
from ai_router.keys.errors import BudgetExhausted, BudgetUnavailable, RateLimited
from ai_router.keys.ledger import LEASE_S, Admitted, Ledger, Renewal
from ai_router.keys.own_limits import OwnLimits
from ai_router.observability.recorder import Batches
from ai_router.shared.client import SharedUnavailable
from ai_router.shared.start import Shared
from ai_router.shared.values import Values
from ai_router.types import Cost, Outcome
from ai_router.virtual_key import VirtualKey

log = logging.getLogger(__name__)

_GRACE_S = 0.3
"""A client may send its next request a moment before the last one has closed: so long one more waits for that."""
_GRACE_STEP_S = 0.02
"""How often other processes are looked at meanwhile."""
_QUEUE_LIMIT = 10_000


@dataclass(slots=True)
class _UnderWay:
    """A request that was let in. ``usd``: reserved for it; None: nothing."""

    key: VirtualKey
    tokens: int
    when: datetime
    running: bool = True
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class RateState:
    """What is left of a key's limits per minute; None: there is no such limit. ``..._reset_s``: until there is more."""

    requests: tuple[int, int, float] | None
    """The limit, what is left of it, and the seconds."""
    tokens: tuple[int, int, float] | None


class Admission:
    """``spent_of`` returns what a key has spent in the day and the month of a moment, by PERIODS, from the database; it
    may raise StoreUnavailable. ``cost_of``: what a request has cost.

    Safe from any thread.
    """

    def __init__(
        self,
        shared: Shared,
        spent_of: Callable[[str, datetime], Mapping[str, float]],
        cost_of: Callable[[Outcome], Cost],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._ledger = None if shared.client is None else Ledger(shared.client)
        self._spent_of = spent_of
        self._cost_of = cost_of
        self._clock = clock
        self._own = OwnLimits(lambda: shared.peers.count)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._under_way: dict[str, _UnderWay] = {}
        self._ended: defaultdict[str, list[str]] = defaultdict(list)
        """Requests that are no longer under way, which Redis does not know yet, by their keys."""
        self._work: Batches[Callable[[], None]] = Batches(
            self._do, name="key-ledger", limit=_QUEUE_LIMIT, idle_s=LEASE_S / 3, gather_s=0.001
        )
        self._renewed_at = clock()

    def start(self) -> None:
        """Start the thread that tells Redis."""
        self._work.start()

    def close(self) -> None:
        """Tell what waits, then stop."""
        self._work.close()

    def begin(self, key: VirtualKey | None, session_id: str, tokens: int, when: datetime) -> Admitting | None:
        """A request of a key that is to be let in; None: it needs no permission. ``tokens``: as many as it may have.
        ``when``: now, in UTC."""
        if key is None or not key.limits.any:
            return None
        return Admitting(self, key, session_id, tokens, when, self._shared.values)

    def closed(self, outcome: Outcome) -> None:
        """The response has closed: the request is no longer under way, and costs what it costs. A subscriber."""
        session_id = outcome.request.session_id
        if session_id in self._under_way:
            self.ended(session_id)
            self._settle_soon(session_id, lambda: self.settle(session_id, *_bill(self._cost_of(outcome))))

    def ended(self, session_id: str) -> None:
        """A request is no longer under way."""
        with self._changed:
            found = self._under_way.get(session_id)
            if found is None or not found.running:
                return
            found.running = False
            key_id = found.key.id
            self._ended[key_id].append(session_id)
            self._own.ended(key_id, session_id)
            self._changed.notify_all()
        self._work.put(lambda: self._release(key_id))

    def forget(self, session_id: str) -> None:
        """A request has ended that can have cost nothing."""
        self.ended(session_id)
        self._settle_soon(session_id, lambda: self.settle(session_id, 0.0, None))

    def _settle_soon(self, session_id: str, settle: Callable[[], None]) -> None:
        if not self._work.put(settle):
            # Not renewed any more, its reservation runs out, and counts in full.
            with self._lock:
                self._under_way.pop(session_id, None)

    def settle(self, session_id: str, usd: float | None, tokens: int | None) -> None:
        """A request has cost ``usd`` (None: nobody knows) and had so many tokens (None: nobody knows). Raises
        SharedUnavailable."""
        with self._lock:
            found = self._under_way.pop(session_id, None)
        if found is None or self._ledger is None:
            return
        more = 0 if tokens is None or found.key.limits.tokens_per_minute is None else tokens - found.tokens
        if found.usd is not None or more or usd:
            self._ledger.settle(found.key.id, session_id, usd, more, found.when)

    # For requests on their way in.

    def admit(self, asking: Admitting, names: Sequence[str]) -> tuple[Admitted, Sequence[bytes | None] | None]:
        """Let a request in, or say which limit keeps it out; and look ``names`` up."""
        end = self._clock() + _GRACE_S
        while True:
            found = self._ask(asking, names)
            if found[0].limit != "concurrency" or self._clock() >= end:
                break
            with self._changed:
                self._changed.wait(_GRACE_STEP_S)
        if not found[0].limit:
            with self._lock:
                self._under_way[asking.session_id] = _UnderWay(asking.key, asking.tokens, asking.when)
        return found

    def _ask(self, asking: Admitting, names: Sequence[str]) -> tuple[Admitted, Sequence[bytes | None] | None]:
        key = asking.key
        with self._lock:
            ended = self._ended.pop(key.id, [])
        if self._ledger is not None:
            try:
                return self._ledger.admit(key.id, key.limits, asking.session_id, asking.tokens, ended, names)
            except SharedUnavailable:
                log.debug("a request is let in by this process's share of the limits")
        if key.limits.has_budget:
            raise BudgetUnavailable
        return self._own.admit(key.id, key.limits, asking.session_id, asking.tokens), None

    def reserve(self, asking: Admitting, usd: float) -> str:
        """Reserve the most that a request can cost. Returns the period whose budget does not suffice; "": it does.

        Raises BudgetUnavailable.
        """
        key = asking.key
        if self._ledger is None:
            raise BudgetUnavailable
        try:
            short = self._ledger.reserve(key.id, key.limits, asking.session_id, usd, asking.when)
            if short == "unknown":
                self._ledger.start_count(key.id, self._spent_of(key.id, asking.when), asking.when)
                short = self._ledger.reserve(key.id, key.limits, asking.session_id, usd, asking.when)
        except (SharedUnavailable, StoreUnavailable) as problem:
            raise BudgetUnavailable from problem
        if short == "unknown":
            raise BudgetUnavailable
        if not short:
            with self._lock:
                if (found := self._under_way.get(asking.session_id)) is not None:
                    found.usd = (found.usd or 0.0) + usd
        return short

    # On the thread.

    def _do(self, jobs: Sequence[Callable[[], None]]) -> None:
        for job in jobs:
            try:
                job()
            except SharedUnavailable as problem:
                log.debug("a key's account is not told of everything; leases run out: %s", problem)
        if self._clock() - self._renewed_at >= LEASE_S / 3:
            self._renewed_at = self._clock()
            self._renew()

    def _release(self, key_id: str) -> None:
        with self._lock:
            ended = self._ended.pop(key_id, None)
        if ended and self._ledger is not None:
            self._ledger.release(key_id, ended)

    def _renew(self) -> None:
        by_key: defaultdict[str, list[Renewal]] = defaultdict(list)
        with self._lock:
            for session_id, one in self._under_way.items():
                by_key[one.key.id].append(Renewal(session_id, one.running, one.usd))
        for key_id, renewals in by_key.items():
            try:
                if self._ledger is not None:
                    self._ledger.renew(key_id, renewals)
                    self._release_ended(key_id, renewals)
            except SharedUnavailable as problem:
                log.debug("leases of requests are not renewed: %s", problem)

    def _release_ended(self, key_id: str, renewals: Sequence[Renewal]) -> None:
        """Those that have ended while they were renewed, which has put them back."""
        with self._lock:
            living = {name for name, one in self._under_way.items() if one.running}
            self._ended[key_id] += [one.id for one in renewals if one.running and one.id not in living]
        self._release(key_id)


class Admitting:
    """One request of a key on its way in. ``values`` looks up what other processes know, and lets it in thereby."""

    def __init__(
        self, admission: Admission, key: VirtualKey, session_id: str, tokens: int, when: datetime, values: Values
    ) -> None:
        self._admission = admission
        self.key = key
        self.session_id = session_id
        self.tokens = tokens
        self.when = when
        self.rates: RateState | None = None
        """What is left of the limits; None: it has not been asked yet."""
        self.reserved_usd: float | None = None
        """What is reserved for it; None: nothing."""
        self.values: Values = _AdmittingValues(self, values)

    def complete(self) -> None:
        """Let it in, if that was not done yet. Raises RateLimited and BudgetUnavailable."""
        if self.rates is None:
            self.look_up(())

    def look_up(self, names: Sequence[str]) -> Sequence[bytes | None] | None:
        """Let it in, and look up the values of these names; None: nobody knows. Raises as ``complete``."""
        admitted, values = self._admission.admit(self, names)
        self.rates = _rates(self.key, admitted)
        if admitted.limit:
            raise _limited(self.key, admitted)
        return values

    def reserve(self, usd: float) -> str:
        """Reserve the most that it can cost. Returns the period whose budget does not suffice; "": it does.

        Raises BudgetUnavailable."""
        short = self._admission.reserve(self, usd)
        if not short:
            self.reserved_usd = (self.reserved_usd or 0.0) + usd
        return short

    def exhausted(self, period: str) -> BudgetExhausted:
        """The error for a budget that does not suffice."""
        day = self.when.replace(hour=0, minute=0, second=0, microsecond=0)
        following = (
            day + timedelta(days=1) if period == "day" else (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        )
        return BudgetExhausted(period, following.isoformat(), (following - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True, slots=True)
class _AdmittingValues:
    """Values, the first look at which lets a request in."""

    asking: Admitting
    shared: Values = field(repr=False)

    def get(self, names: Sequence[str]) -> Sequence[bytes | None] | None:
        return self.asking.look_up(names) if self.asking.rates is None else self.shared.get(names)

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        self.shared.put(name, value, ttl_s)

    def delete(self, name: str) -> None:
        self.shared.delete(name)

    def flush(self) -> None:
        self.shared.flush()


def _rates(key: VirtualKey, admitted: Admitted) -> RateState:
    requests, tokens = key.limits.requests_per_minute, key.limits.tokens_per_minute
    return RateState(
        None if requests is None else (requests, max(0, requests - admitted.requests), admitted.requests_reset_s),
        None if tokens is None else (tokens, max(0, tokens - admitted.tokens), admitted.tokens_reset_s),
    )


def _limited(key: VirtualKey, admitted: Admitted) -> RateLimited:
    limits = key.limits
    if admitted.limit == "concurrency":
        return RateLimited(f"this key may have {limits.concurrency} requests under way at a time", 1.0)
    limit = limits.requests_per_minute if admitted.limit == "requests" else limits.tokens_per_minute
    return RateLimited(f"this key may use {limit} {admitted.limit} a minute", admitted.wait_s)


def _bill(cost: Cost) -> tuple[float | None, int | None]:
    """What clouds have charged for a request, None: not all of that is known; and its tokens, as far as they are."""
    return cost.bill_usd, None if cost.usage is None else cost.usage.input + cost.usage.output
