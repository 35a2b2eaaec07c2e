"""When a backend is left alone, and when it is trusted again."""

from __future__ import annotations

import pytest

from ai_router.resilience.breaker import Breaker, BreakerRules, State, Why

RULES = BreakerRules(failures_in_a_row=3, min_calls=10, open_s=1.0, max_open_s=8.0)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(RULES)


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(now)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.admits(0)
    fail(breaker, 1)
    assert not breaker.admits(0.9)
    assert (breaker.state(0.9), breaker.why, breaker.admits_in(0.4)) == (State.OPEN, Why.FAILING, 0.6)


def test_a_success_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded(0)
    fail(breaker, 2)
    assert breaker.state(0) is State.CLOSED


def test_half_of_many_calls_failing_opens_it_too(breaker: Breaker) -> None:
    for _ in range(5):
        breaker.succeeded(0)
        breaker.failed(0)
    assert breaker.state(0) is State.OPEN


def test_what_failed_long_ago_does_not_count(breaker: Breaker) -> None:
    for _ in range(4):
        breaker.succeeded(0)
        breaker.failed(0)
    breaker.succeeded(100)
    breaker.failed(100)
    assert breaker.state(100) is State.CLOSED


def test_after_a_while_one_call_is_a_probe(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert breaker.state(1.0) is State.HALF_OPEN
    assert breaker.admits(1.0)
    breaker.call_started(1.0)
    assert not breaker.admits(1.0)
    breaker.succeeded(1.1)
    assert (breaker.state(1.1), breaker.why) == (State.CLOSED, None)


def test_a_probe_that_fails_doubles_the_wait_up_to_a_limit(breaker: Breaker) -> None:
    fail(breaker, 3)
    now, waits = 0.0, []
    for _ in range(6):
        waits.append(breaker.admits_in(now))
        now += waits[-1]
        breaker.call_started(now)
        breaker.failed(now)
    assert waits == [1, 2, 4, 8, 8, 8]


def test_a_probe_without_a_result_lets_another_begin(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.call_started(1.0)
    breaker.ended_without_result(1.0)
    assert breaker.admits(1.0)


def test_a_cooldown_lasts_as_long_as_the_backend_said_and_is_never_cut_short(breaker: Breaker) -> None:
    breaker.open(0, 10, Why.LIMITED)
    breaker.open(1, 2, Why.LIMITED)
    assert breaker.admits_in(4) == 6
    assert breaker.admits(10)


def test_a_refused_key_opens_it_at_once(breaker: Breaker) -> None:
    breaker.failed(0, Why.MISCONFIGURED)
    assert (breaker.state(0), breaker.why) == (State.OPEN, Why.MISCONFIGURED)


def test_success_of_an_old_call_does_not_close_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.succeeded(0.5)
    assert breaker.state(0.5) is State.OPEN


def test_the_failures_of_one_body_count_once_in_half_a_minute() -> None:
    breaker = Breaker(BreakerRules(failures_in_a_row=2))
    for now in (0.0, 1.0, 30.0):
        breaker.failed(now, body=b"poison")
    assert breaker.state(30.0) is State.CLOSED
    breaker.failed(30.5, body=b"poison")
    assert breaker.state(30.5) is State.OPEN, "half a minute after the first that counted"


def test_failures_of_several_bodies_count_and_so_do_those_that_no_body_is_to_blame_for() -> None:
    for bodies in ((b"a", b"b"), (None, None), (b"a", None)):
        breaker = Breaker(BreakerRules(failures_in_a_row=2))
        for body in bodies:
            breaker.failed(0.0, body=body)
        assert breaker.state(0.0) is State.OPEN, bodies


def test_a_probe_counts_whatever_its_body() -> None:
    breaker = Breaker(BreakerRules(failures_in_a_row=1, open_s=1.0))
    breaker.failed(0.0, body=b"poison")
    assert breaker.state(1.0) is State.HALF_OPEN
    breaker.call_started(1.0)
    breaker.failed(1.0, body=b"poison")
    assert breaker.state(1.5) is State.OPEN
