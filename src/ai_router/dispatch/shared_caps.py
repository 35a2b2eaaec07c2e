"""Caps of backends over all processes: each has a share of a cap, and shares go to where calls are.

A request asks nobody: it finds out from this process's share whether a call may begin. A thread renews the shares, at
once where a call got no permit. Only caps that somebody has set are shared (BACKEND_CAP, the catalogue's): they say
what a backend can take. The default is about threads of this process.

While Redis cannot be reached, a share is the cap divided by the last known number of processes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files

from ai_router.providers.registry import CLASSIFIER
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.shared.client import SharedClient, SharedUnavailable
from ai_router.shared.peers import Peers
from ai_router.shared.start import Shared
from ai_router.shared.values import PREFIX

log = logging.getLogger(__name__)

_TOPIC = "caps"
LEASE_S = 5.0
"""For how long a share counts without a word of its process."""
_RENEW_S = 0.25
_LEAST_PAUSE_S = 0.01
_PAUSE_FOR_EACH_S = 0.002
"""A hundred processes that all wait ask less often than two."""


class SharedCaps:
    """Keeps the shares of this process. Safe from any thread."""

    def __init__(
        self, limiter: ConcurrencyLimiter, client: SharedClient, peers: Peers, lease_s: float = LEASE_S
    ) -> None:
        self._limiter, self._client, self._peers = limiter, client, peers
        self._lease_ms = int(lease_s * 1000)
        self._shares: dict[str, int] = {}
        self._refused: set[str] = set()
        """Backends of which calls got no permit since the shares were renewed."""
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_repeatedly, name="shared-caps", daemon=True)

    def start(self, names: Iterable[str]) -> None:
        """Take part from now on. ``names``: backends whose shares are to be known before the first call."""
        for name in names:
            self._limiter.report(name)
        self._renew_all()
        self._peers.on(_TOPIC, lambda _: self._awake.set())
        self._limiter.share_of = self.share_of
        self._limiter.on_refused = self._note_refusal
        self._thread.start()

    def close(self) -> None:
        """Leave the shares to the others. Idempotent."""
        self._stop.set()
        self._awake.set()
        self._thread.join()
        try:
            for name in self._shares:
                self._leave(name)
        except SharedUnavailable:
            log.debug("the shares of this process will run out by themselves")

    def _leave(self, name: str) -> None:
        self._client.call(lambda redis: redis.hdel(_key(name), self._peers.name))

    def share_of(self, name: str, cap: int) -> int:
        """How many of the calls of a backend that has this cap are this process's to make now."""
        if name == CLASSIFIER:
            return cap
        share = self._shares.get(name) if self._client.works else None
        return max(1, cap // self._peers.count) if share is None else min(share, cap)

    def _note_refusal(self, names: Iterable[str]) -> None:
        self._refused.update(names)
        self._awake.set()

    def _renew_repeatedly(self) -> None:
        while True:
            self._awake.clear()
            is_short, processes = self._renew_all()
            # What another process has to give up first comes free as its calls end.
            if self._stop.wait(_LEAST_PAUSE_S + processes * _PAUSE_FOR_EACH_S):
                return
            if not is_short:
                self._awake.wait(_RENEW_S)

    def _renew_all(self) -> tuple[bool, int]:
        """Whether a backend is wanted by more than its cap or this process's share, and how many processes there
        are."""
        is_short, processes = False, 1
        refused, self._refused = self._refused, set()
        for name in self._limiter.names():
            cap = self._limiter.set_cap(name)
            if cap is None or name == CLASSIFIER:
                continue
            report = self._limiter.report(name)
            wants = report.in_flight + max(report.waiting, name in refused)
            try:
                share, demanded, processes = self._renew(name, cap, report.in_flight, wants)
            except SharedUnavailable:
                # What this process may do now without the others may be more than its share was.
                self._limiter.admit_waiting()
                return False, 1
            is_short = is_short or demanded > cap or wants > share
        if is_short:
            self._peers.tell(_TOPIC, None)
        return is_short, processes

    def _renew(self, name: str, cap: int, running: int, wants: int) -> tuple[int, int, int]:
        """The share now, what all processes would have together, and how many there are. Raises SharedUnavailable."""
        while True:
            keeps_to = self._shares.get(name, 0)
            share, demanded, processes = self._client.run(
                _script(), [_key(name)], [self._peers.name, cap, running, wants, keeps_to, self._lease_ms]
            )
            self._shares[name] = share
            if share >= keeps_to:
                break
            # From now on no call begins beyond it; what is under way is looked at once more, and told.
            running = self._limiter.report(name).in_flight
        if share > keeps_to:
            self._limiter.admit_waiting()
        return share, demanded, processes


def share_caps(limiter: ConcurrencyLimiter, shared: Shared, names: Iterable[str]) -> Callable[[], None]:
    """Share the caps of a limiter's backends with the other processes, if there may be any. ``names``: those that are
    known. Returns what ends it."""
    if shared.client is None:
        return lambda: None
    caps = SharedCaps(limiter, shared.client, shared.peers)
    caps.start(names)
    return caps.close


def _key(backend: str) -> str:
    return f"{PREFIX}cap:{backend}"


@cache
def _script() -> str:
    return files("ai_router.dispatch").joinpath("share_cap.lua").read_text("utf-8")
