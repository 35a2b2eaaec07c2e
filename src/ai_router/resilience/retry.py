"""After a failed call: what its error says about the backend, and whether one more retry is within the budget.

The waits, for a Retry-After and between retries, are in dispatch/dispatcher.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ai_router.errors import (
    IdleConnectionSilent,
    RouterError,
    UpstreamError,
    UpstreamExhausted,
    UpstreamFailed,
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
    """A limit for the retries under way: a fifth of the active requests, or three if that is more.

    Without it a backend that is down would get three times its usual calls. ``active`` returns the number of requests
    under way. Safe from any thread.
    """

    def __init__(self, active: Callable[[], int]) -> None:
        self._active = active
        self._lock = threading.Lock()
        self._under_way = 0

    def acquire(self) -> bool:
        """Begin a retry; False if the limit is reached. After True, call ``release`` when the retry has ended."""
        with self._lock:
            if self._under_way >= max(_MIN_RETRIES, int(_RETRY_SHARE * self._active())):
                return False
            self._under_way += 1
            return True

    def release(self) -> None:
        """A retry has ended, whatever its result."""
        with self._lock:
            self._under_way -= 1


_EXHAUSTED_S = 60.0
"""How long a backend gets no calls when its quota is used up: its owner may refill it at any time."""


def record_result(permit: Permit, problem: RouterError) -> None:
    """Report to ``permit`` what the error of its call says about the backend.

    Errors that are not the backend's (an abort, a request that we cannot send, perhaps only a dead connection) report
    nothing.
    """
    if not isinstance(problem, UpstreamError) or isinstance(problem, IdleConnectionSilent):
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
        permit.failed(answered=isinstance(problem, UpstreamFailed))
