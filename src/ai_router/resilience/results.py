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
from ai_router.resilience.limiter import Pass

_EXHAUSTED_S = 60.0
"""A quota that is used up may be filled by its owner at any time."""


def tell(place: Pass, problem: RouterError) -> None:
    """Tell a gate what became of a call that failed. One that we gave up, or could not make, says nothing
    of the backend."""
    if not isinstance(problem, UpstreamError):
        return
    if isinstance(problem, UpstreamLimited):
        place.limited(problem.retry_after_s)
    elif isinstance(problem, UpstreamExhausted):
        place.limited(_EXHAUSTED_S, Why.EXHAUSTED)
    elif isinstance(problem, UpstreamMisconfigured):
        place.misconfigured()
    elif isinstance(problem, (UpstreamRefused, UpstreamFoundNothing)):
        place.succeeded()
    elif problem.transient and problem.retry_after_s is not None:
        place.limited(problem.retry_after_s, Why.BUSY)
    else:
        place.failed()
