"""How many calls each backend may have at a time, and who has to keep to that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ai_router.config import Settings
from ai_router.dispatch.shared_breakers import share_breakers
from ai_router.dispatch.shared_caps import share_caps
from ai_router.providers.registry import CLASSIFIER, Registry
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.shared.start import Shared


def build_limiter(settings: Settings, registry: Registry) -> ConcurrencyLimiter:
    """A limit for each backend."""
    rules = BreakerRules(
        failures_in_a_row=settings.breaker_failures,
        min_calls=4 * settings.breaker_failures,
        open_s=settings.backoff_s,
        max_open_s=30 * settings.backoff_s,
    )
    limits = limits_of(settings, registry)
    return ConcurrencyLimiter(
        limits.cap, settings.queue_limit, rules, limits.caps, counts_streams=limits.counts_streams
    )


def share_limiter(limiter: ConcurrencyLimiter, registry: Registry, shared: Shared, closing: ExitStack) -> None:
    """Share caps and breakers with the other processes. ``closing`` ends that."""
    names = [backend.name for backend in registry.backends()]
    share_breakers(limiter, shared, names)
    closing.callback(share_caps(limiter, shared, names))


@dataclass(frozen=True, slots=True)
class BackendLimits:
    """``cap``: calls that a backend may have at a time; ``caps``: other numbers, by name; ``counts_streams``: whether
    ``cap`` counts streams that have begun."""

    cap: int
    caps: Mapping[str, int]
    counts_streams: bool


def limits_of(settings: Settings, registry: Registry) -> BackendLimits:
    """The limits of the backends. With several that answer chats, none of them may take all places."""
    cap = settings.backends_cap if registry.clouds else settings.backend_cap or settings.request_threads
    own = {name: backend.cap for name, backend in registry.clouds.items() if backend.cap is not None}
    # A cap that somebody has set is what the backend can take; the default is for what holds a thread.
    return BackendLimits(cap, {CLASSIFIER: settings.request_threads, **own}, settings.backend_cap is not None)
