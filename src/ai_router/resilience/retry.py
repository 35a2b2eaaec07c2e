"""After a call: what it says about its backend, and whether one more retry may be made."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ai_router.errors import (
    RouterError,
    UpstreamError,
    UpstreamExhausted,
    UpstreamFoundNothing,
    UpstreamLimited,
    UpstreamMisconfigured,
    UpstreamRefused,
)
from ai_router.resilience.breaker import Why
from ai_router.resilience.limiter import Permit

_RETRY_SHARE = 0.2
_MIN_RETRIES = 3


class RetryBudget:
    """Retries under way may be a fifth of all active requests, or three, so that a backend that is down is not asked
    three times as much. Safe from any thread."""

    def __init__(self, active: Callable[[], int]) -> None:
        self._active = active
        self._lock = threading.Lock()
        self._under_way = 0

    def acquire(self) -> bool:
        """Begin a retry, if one more may be under way."""
        with self._lock:
            if self._under_way >= max(_MIN_RETRIES, int(_RETRY_SHARE * self._active())):
                return False
            self._under_way += 1
            return True

    def release(self) -> None:
        """A retry has ended, however it did."""
        with self._lock:
            self._under_way -= 1


_EXHAUSTED_S = 60.0
"""A quota that is used up may be filled by its owner at any time."""


def record_result(permit: Permit, problem: RouterError) -> None:
    """Tell a gate what became of a call that failed. One that we gave up, or could not make, says nothing
    of the backend."""
    if not isinstance(problem, UpstreamError):
        return
    if isinstance(problem, UpstreamLimited):
        permit.limited(problem.retry_after_s)
    elif isinstance(problem, UpstreamExhausted):
        permit.limited(_EXHAUSTED_S, Why.EXHAUSTED)
    elif isinstance(problem, UpstreamMisconfigured):
        permit.misconfigured()
    elif isinstance(problem, (UpstreamRefused, UpstreamFoundNothing)):
        permit.succeeded()
    elif problem.transient and problem.retry_after_s is not None:
        permit.limited(problem.retry_after_s, Why.BUSY)
    else:
        permit.failed()
