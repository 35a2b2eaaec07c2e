"""Waits, and who drives them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ai_router.dispatch.dispatcher import FutureWait, QueueWait, TimedWait, WaitDriver, Waiting
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


def steps(*waits: Scripted) -> Waiting[str]:
    yield from waits
    return "done"


def test_a_course_without_patience_goes_to_the_end() -> None:
    driver = WaitDriver(steps(Scripted(3), Scripted(1)))
    assert driver.run_for()
    assert driver.result == "done"


def test_a_course_stops_when_patience_ends_and_goes_on_where_it_stood() -> None:
    driver = WaitDriver(steps(Scripted(3), Scripted(1)))
    looks = []
    while not driver.run_for(0):
        looks.append(driver.notice())
    assert looks == ["2 more", "1 more"]
    assert driver.result == "done"


def test_what_ends_a_wait_is_raised_where_the_steps_stand(scope: CancelScope) -> None:
    let_go = []

    def holding() -> Waiting[str]:
        try:
            yield TimedWait(scope, 60, "x", time.monotonic)
        finally:
            let_go.append(True)
        return "never"

    driver = WaitDriver(holding())
    threading.Timer(0.05, scope.abort, [RequestCancelled()]).start()
    with pytest.raises(RequestCancelled):
        driver.run_for()
    assert let_go == [True]


def test_closing_a_course_lets_go_of_what_it_holds() -> None:
    let_go = []

    def holding() -> Waiting[str]:
        try:
            yield Scripted(100)
        finally:
            let_go.append(True)
        return "never"

    driver = WaitDriver(holding())
    driver.run_for(0)
    driver.close()
    assert let_go == [True]


def test_a_pause_tells_what_is_left_of_it(scope: CancelScope) -> None:
    now = [10.0]
    pause = TimedWait(scope, 5, "xai failed", lambda: now[0])
    now[0] = 12.0
    assert pause.notice() == "xai failed, trying again in 3 s"
    now[0] = 15.0
    assert pause.wait(0)


@pytest.fixture
def taken() -> Iterator[ConcurrencyLimiter]:
    limiter = ConcurrencyLimiter(1, 5, BreakerRules())
    limiter.acquire(["a"])
    return limiter


def test_an_abort_wakes_whoever_stands_in_the_queue(scope: CancelScope, taken: ConcurrencyLimiter) -> None:
    ticket = taken.queue(["a"], "")
    waiting = QueueWait(scope, ticket, time.monotonic() + 60, time.monotonic)
    threading.Timer(0.05, scope.abort, [ClientGone()]).start()
    with pytest.raises(ClientGone):
        waiting.wait(60)


def test_the_queue_is_left_when_its_time_is_up(scope: CancelScope, taken: ConcurrencyLimiter) -> None:
    waiting = QueueWait(scope, taken.queue(["a"], ""), time.monotonic() + 0.05, time.monotonic)
    assert waiting.wait(60)
    assert waiting.granted is None
    assert waiting.notice().startswith("waiting for a: position 1, about ")


def test_work_on_another_thread_is_waited_for() -> None:
    go = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        under = FutureWait(threads.submit(go.wait, 5), "searching")
        assert not under.wait(0)
        go.set()
        assert under.wait(5)
