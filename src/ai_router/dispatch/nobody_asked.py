"""The error of a request for which no backend could be asked."""

from __future__ import annotations

from collections.abc import Sequence

from ai_router.errors import Source, UpstreamUnavailable
from ai_router.providers.registry import Candidate
from ai_router.resilience.breaker import Why
from ai_router.resilience.limiter import ConcurrencyLimiter

_STATUS_AND_CODE = {Why.LIMITED: (429, "rate_limit_exceeded"), Why.EXHAUSTED: (429, "insufficient_quota")}


def nobody_asked(limiter: ConcurrencyLimiter, candidates: Sequence[Candidate]) -> UpstreamUnavailable:
    """Why the candidate that is free soonest was not asked, and when to try again."""
    blocked = [(*limiter.blocked_for(candidate.limiter_key), candidate) for candidate in candidates]
    seconds, why, candidate = min(blocked, key=lambda entry: entry[0])
    source = Source(candidate.backend.name, candidate.model)
    if why is None:
        return UpstreamUnavailable("all its places are taken, and too many wait already", source, retry_after_s=1.0)
    status, code = _STATUS_AND_CODE.get(why, (503, None))
    return UpstreamUnavailable(
        f"not asked, it is {why}; try again in {max(seconds, 1):.0f} s",
        source,
        status=status,
        code=code,
        retry_after_s=seconds,
    )
