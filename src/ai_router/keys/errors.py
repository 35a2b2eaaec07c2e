"""Why a request of a virtual key is refused that is not wrong by itself."""

from __future__ import annotations

from ai_router.errors import RouterError


class RateLimited(RouterError):
    """429: the key has used up what it may in a minute, or has as many requests under way as it may."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BudgetExhausted(RouterError):
    """429: what the request could cost is more than is left of the key's budget."""

    status, type, code = 429, "rate_limit_error", "budget_exhausted"

    def __init__(self, period: str, resets_at: str, retry_after_s: float) -> None:
        super().__init__(
            f"what this request could cost is more than is left of the key's budget for the {period}, "
            f"which begins anew at {resets_at}"
        )
        self.retry_after_s = retry_after_s


class BudgetUnavailable(RouterError):
    """503: what the key has spent cannot be found out now, so that nothing may be spent."""

    status, code, retry_after_s = 503, "budget_unavailable", 5

    def __init__(self) -> None:
        super().__init__("this key has a budget, and what it has spent cannot be found out now; try again in a moment")
