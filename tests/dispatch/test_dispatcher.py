"""Waits, and what drives them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ai_router.dispatch.dispatcher import QueueWait, TimedWait, WaitDriver, Waiting
from ai_router.errors import ClientGone, RequestCancelled
from ai_router.http.calls import CancelScope
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.limiter import ConcurrencyLimiter


class Scripted:
    """A wait that takes so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def wait(self, seconds: float) -> bool:
        self.looks -= 1
        return self.looks <= 0

    def notice(self) -> str:
        return f"{self.looks} more"


@pytest.fixture
def scope() -> CancelScope:
    return CancelScope()


def waiting_for(*waits: Scripted) -> Waiting[str]:
    yield from waits
    return "done"


def test_without_a_time_limit_a_driver_runs_to_the_end() -> None:
    driver = WaitDriver(waiting_for(Scripted(3), Scripted(1)))
    assert driver.run_for()
    assert driver.result == "done"


def test_a_driver_stops_when_its_time_is_up_and_goes_on_where_it_stopped() -> None:
    driver = WaitDriver(waiting_for(Scripted(3), Scripted(1)))
    looks = []
    while not driver.run_for(0):
        looks.append(driver.notice())
    assert looks == ["2 more", "1 more"]
    assert driver.result == "done"


def test_an_error_that_ends_a_wait_is_raised_in_the_generator(scope: CancelScope) -> None:
    closed = []

    def generator() -> Waiting[str]:
        try:
            yield TimedWait(scope, 60, "x", time.monotonic)
        finally:
            closed.append(True)
        return "never"

    driver = WaitDriver(generator())
    threading.Timer(0.05, scope.abort, [RequestCancelled()]).start()
    with pytest.raises(RequestCancelled):
        driver.run_for()
    assert closed == [True]


def test_closing_a_driver_closes_its_generator() -> None:
    closed = []

    def generator() -> Waiting[str]:
        try:
            yield Scripted(100)
        finally:
            closed.append(True)
        return "never"

    driver = WaitDriver(generator())
    driver.run_for(0)
    driver.close()
    assert closed == [True]


def test_the_notice_of_a_timed_wait_says_how_long_it_still_takes(scope: CancelScope) -> None:
    now = [10.0]
    wait = TimedWait(scope, 5, "xai failed", lambda: now[0])
    now[0] = 12.0
    assert wait.notice() == "xai failed, trying again in 3 s"
    now[0] = 15.0
    assert wait.wait(0)


@pytest.fixture
def full_limiter() -> Iterator[ConcurrencyLimiter]:
    limiter = ConcurrencyLimiter(1, 5, BreakerRules())
    limiter.acquire(["a"])
    return limiter


def test_an_abort_ends_a_wait_in_the_queue(scope: CancelScope, full_limiter: ConcurrencyLimiter) -> None:
    ticket = full_limiter.queue(["a"], "")
    waiting = QueueWait(scope, ticket, time.monotonic() + 60, time.monotonic)
    threading.Timer(0.05, scope.abort, [ClientGone()]).start()
    with pytest.raises(ClientGone):
        waiting.wait(60)


def test_a_wait_in_the_queue_ends_when_its_time_is_up(scope: CancelScope, full_limiter: ConcurrencyLimiter) -> None:
    waiting = QueueWait(scope, full_limiter.queue(["a"], ""), time.monotonic() + 0.05, time.monotonic)
    assert waiting.wait(60)
    assert waiting.permit is None
    assert waiting.notice().startswith("waiting for a: position 1, about ")
