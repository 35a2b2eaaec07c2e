"""From an error to what it says about the backend."""

from __future__ import annotations

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
