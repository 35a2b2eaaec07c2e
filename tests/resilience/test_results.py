"""What an error says about the backend."""

from __future__ import annotations

import pytest

from ai_router.errors import (
    ClientGone,
    InvalidRequest,
    RouterError,
    Source,
    UpstreamExhausted,
    UpstreamFailed,
    UpstreamFoundNothing,
    UpstreamLimited,
    UpstreamMisconfigured,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_router.resilience.breaker import BreakerRules, Why
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.resilience.retry import record_result

HERE = Source("xai", "grok")


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (UpstreamFailed("boom", HERE), Why.FAILING),
        (UpstreamTimeout("late", HERE), Why.FAILING),
        (UpstreamUnreachable("no", HERE), Why.FAILING),
        (UpstreamLimited("slow", HERE, retry_after_s=5), Why.LIMITED),
        (UpstreamLimited("slow", HERE), Why.LIMITED),
        (UpstreamFailed("full", HERE, status=503, retry_after_s=5), Why.BUSY),
        (UpstreamExhausted("pay", HERE), Why.EXHAUSTED),
        (UpstreamMisconfigured("key", HERE), Why.MISCONFIGURED),
        (UpstreamRefused("too long", HERE), None),
        (UpstreamFoundNothing("nothing", HERE), None),
        (ClientGone(), None),
        (InvalidRequest("no"), None),
    ],
)
def test_what_an_error_says_of_the_backend(problem: RouterError, why: Why | None) -> None:
    limiter = ConcurrencyLimiter(5, 5, BreakerRules(failures_in_a_row=1))
    permit = limiter.acquire(["xai"])
    assert permit is not None
    record_result(permit, problem)
    permit.release()
    assert limiter.report("xai").why is why
