"""Breakers of several processes as one: what one has seen of a backend, all heed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from ai_router.resilience.breaker import BreakerChange, Why
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.shared.start import Shared

_TOPIC = "breaker"


def share_breakers(
    limiter: ConcurrencyLimiter, shared: Shared, names: Sequence[str], now: Callable[[], float] = time.time
) -> None:
    """Tell the other processes when a breaker opens or closes, and follow theirs.

    ``names``: of the backends whose breakers may be open already. ``now``: seconds since 1970.
    """

    def tell(change: BreakerChange) -> None:
        message = {"backend": change.backend, "seconds": change.seconds, "why": change.why}
        shared.peers.tell(_TOPIC, message)
        # For processes that are yet to start.
        if change.seconds:
            kept = {**message, "until": now() + change.seconds}
            shared.values.put(_value_name(change.backend), orjson.dumps(kept), change.seconds)
        else:
            shared.values.delete(_value_name(change.backend))

    def follow(message: dict[str, Any]) -> None:
        why = message["why"]
        limiter.follow(BreakerChange(message["backend"], message["seconds"], None if why is None else Why(why)))

    shared.peers.on(_TOPIC, follow)
    for kept in shared.values.get([_value_name(name) for name in names]) or ():
        if kept is not None:
            message = orjson.loads(kept)
            follow({**message, "seconds": max(0.0, message["until"] - now())})
    limiter.on_breaker = tell


def _value_name(backend: str) -> str:
    return f"breaker:{backend}"
