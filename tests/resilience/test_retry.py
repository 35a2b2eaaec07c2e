"""Backoff and the budget for retries."""

from __future__ import annotations

import pytest

from ai_router.resilience.breaker import Backoff
from ai_router.resilience.retry import RetryBudget


@pytest.mark.parametrize(("number", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (50, 8)])
def test_the_wait_doubles_up_to_eight_seconds(number: int, seconds: float) -> None:
    assert Backoff(1.0).delay_s(number, 0.5) == seconds


def test_jitter_is_a_quarter_to_either_side() -> None:
    assert (Backoff(1.0).delay_s(1, 0.0), Backoff(1.0).delay_s(1, 1.0)) == (0.75, 1.25)


@pytest.mark.parametrize(("active", "allowed"), [(0, 3), (15, 3), (20, 4), (100, 20)])
def test_a_fifth_of_all_requests_may_be_retried_at_once_or_three(active: int, allowed: int) -> None:
    budget = RetryBudget(lambda: active)
    assert sum(budget.acquire() for _ in range(200)) == allowed


def test_a_released_retry_can_be_acquired_again() -> None:
    budget = RetryBudget(lambda: 0)
    while budget.acquire():
        pass
    budget.release()
    assert budget.acquire()
    assert not budget.acquire()
