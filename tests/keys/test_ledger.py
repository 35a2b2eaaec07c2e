"""What keys have used: never more than the limit, never less than it, whoever asks at the same time."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_router.keys.ledger import LEASE_S, Ledger, Renewal
from ai_router.shared.client import SharedClient
from ai_router.virtual_key import KeyLimits
from tests.fakes.router import eventually
from tests.fakes.valkey import RunningValkey

WHEN = datetime(2026, 11, 29, 12, tzinfo=UTC)


def anew() -> str:
    return f"vk-{uuid.uuid4().hex[:10]}"


def admit(ledger: Ledger, key: str, limits: KeyLimits, tokens: int = 0, ended: tuple[str, ...] = ()) -> str:
    return ledger.admit(key, limits, uuid.uuid4().hex, tokens, ended, ())[0].limit


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 40), asked=st.integers(1, 80))
def test_of_requests_asked_at_the_same_time_exactly_as_many_as_may_are_let_in(
    ledger: Ledger, limit: int, asked: int
) -> None:
    key, limits = anew(), KeyLimits(requests_per_minute=limit)
    with ThreadPoolExecutor(16) as askers:
        answers = list(askers.map(lambda _: admit(ledger, key, limits), range(asked)))
    assert answers.count("") == min(limit, asked)
    assert set(answers) <= {"", "requests"}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 10), rounds=st.integers(1, 5))
def test_of_requests_under_way_there_are_never_more_than_may_be_and_none_is_lost(
    ledger: Ledger, limit: int, rounds: int
) -> None:
    key, limits = anew(), KeyLimits(concurrency=limit)
    for _ in range(rounds):
        ids = [uuid.uuid4().hex for _ in range(limit + 2)]
        answers = [ledger.admit(key, limits, one, 0, (), ())[0].limit for one in ids]
        assert answers == [""] * limit + ["concurrency"] * 2
        ledger.release(key, ids)


def test_those_that_have_ended_make_room_in_the_same_step(ledger: Ledger) -> None:
    key, limits, first = anew(), KeyLimits(concurrency=1), uuid.uuid4().hex
    assert ledger.admit(key, limits, first, 0, (), ())[0].limit == ""
    assert admit(ledger, key, limits) == "concurrency"
    assert admit(ledger, key, limits, ended=(first,)) == ""


def test_tokens_count_for_a_minute_and_are_corrected_by_the_bill(ledger: Ledger) -> None:
    key, limits, request = anew(), KeyLimits(tokens_per_minute=1000), uuid.uuid4().hex
    assert ledger.admit(key, limits, request, 400, (), ())[0].limit == ""
    assert admit(ledger, key, limits, 500) == ""
    admitted = ledger.admit(key, limits, uuid.uuid4().hex, 200, (), ())[0]
    assert (admitted.limit, admitted.tokens) == ("tokens", 900)
    assert 59 <= admitted.wait_s <= 61
    ledger.settle(key, request, None, -350, WHEN)
    assert admit(ledger, key, limits, 200) == ""


def test_one_that_has_more_tokens_than_a_minute_allows_is_let_in_alone(ledger: Ledger) -> None:
    key, limits = anew(), KeyLimits(tokens_per_minute=100)
    assert admit(ledger, key, limits, 500) == ""
    assert admit(ledger, key, limits, 1) == "tokens"


def test_values_are_looked_up_in_the_same_round_trip(ledger: Ledger, valkey: RunningValkey) -> None:
    valkey.client().set("ai-router:known", b"this")
    _, values = ledger.admit(anew(), KeyLimits(concurrency=5), "one", 0, (), ("known", "unknown", "unknown too"))
    assert list(values) == [b"this", None, None]


def started(ledger: Ledger, daily: float | None = None, monthly: float | None = None) -> tuple[str, KeyLimits]:
    key = anew()
    ledger.start_count(key, {"day": 0.0, "month": 0.0}, WHEN)
    return key, KeyLimits(daily_usd=daily, monthly_usd=monthly)


def test_what_was_spent_has_to_be_known_first(ledger: Ledger) -> None:
    key, limits = anew(), KeyLimits(daily_usd=1.0)
    assert ledger.reserve(key, limits, "one", 0.1, WHEN) == "unknown"
    ledger.start_count(key, {"day": 0.95, "month": 3.0}, WHEN)
    assert ledger.reserve(key, limits, "one", 0.1, WHEN) == "day"
    assert ledger.reserve(key, limits, "one", 0.05, WHEN) == ""
    # Only the first word counts.
    ledger.start_count(key, {"day": 0.0, "month": 0.0}, WHEN)
    assert ledger.reserve(key, limits, "two", 0.1, WHEN) == "day"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    amounts=st.lists(st.integers(1, 400_000_000), min_size=1, max_size=60),
    bills=st.lists(st.floats(0, 1), min_size=60, max_size=60),
)
def test_whatever_is_reserved_and_billed_at_the_same_time_the_budget_holds(
    ledger: Ledger, amounts: list[int], bills: list[float]
) -> None:
    key, limits = started(ledger, daily=1.0, monthly=0.9)
    billed: list[float] = []

    def one(number: int) -> None:
        usd, request = amounts[number] / 1e9, uuid.uuid4().hex
        if ledger.reserve(key, limits, request, usd, WHEN) == "":
            billed.append(usd * bills[number])
            ledger.settle(key, request, usd * bills[number], 0, WHEN)

    with ThreadPoolExecutor(16) as askers:
        list(askers.map(one, range(len(amounts))))
    assert sum(billed) <= 0.9 + 1e-6
    # What is left can be had: nothing stays behind.
    assert ledger.reserve(key, limits, "rest", max(0.0, 0.9 - sum(billed) - 1e-6), WHEN) == ""


def test_each_budget_says_which_it_is(ledger: Ledger) -> None:
    key, limits = started(ledger, daily=1.0, monthly=0.5)
    assert ledger.reserve(key, limits, "one", 0.6, WHEN) == "month"
    assert ledger.reserve(key, limits, "one", 1.2, WHEN) == "day"


def test_a_bill_that_nobody_knows_is_all_that_was_reserved(ledger: Ledger) -> None:
    key, limits = started(ledger, daily=1.0)
    assert ledger.reserve(key, limits, "one", 0.7, WHEN) == ""
    ledger.settle(key, "one", None, 0, WHEN)
    assert ledger.reserve(key, limits, "two", 0.4, WHEN) == "day"
    assert ledger.reserve(key, limits, "two", 0.3, WHEN) == ""


def expire(valkey: RunningValkey, key: str) -> None:
    """As if LEASE_S had passed: the server's clock cannot be changed."""
    redis = valkey.client()
    for name in (f"ai-router:key:{key}:reserved_until", f"ai-router:key:{key}:running"):
        for member in redis.zrange(name, 0, -1):
            redis.zincrby(name, -1000 * (LEASE_S + 1), member)


def test_a_reservation_whose_process_has_died_has_cost_all_of_it_once(ledger: Ledger, valkey: RunningValkey) -> None:
    key, limits = started(ledger, daily=1.0)
    assert ledger.reserve(key, limits, "dead", 0.6, WHEN) == ""
    expire(valkey, key)
    assert ledger.reserve(key, limits, "two", 0.5, WHEN) == "day"
    # It was not dead after all: its bill is not counted again.
    ledger.settle(key, "dead", 0.1, 0, WHEN)
    assert ledger.reserve(key, limits, "two", 0.4, WHEN) == ""


def test_a_request_whose_process_has_died_makes_room(ledger: Ledger, valkey: RunningValkey) -> None:
    key, limits = anew(), KeyLimits(concurrency=1)
    assert admit(ledger, key, limits) == ""
    assert admit(ledger, key, limits) == "concurrency"
    expire(valkey, key)
    assert admit(ledger, key, limits) == ""


def test_what_is_renewed_stays_also_over_a_new_start_of_the_server(ledger: Ledger, valkey: RunningValkey) -> None:
    key, limits = started(ledger, daily=1.0)
    limits = KeyLimits(concurrency=1, daily_usd=1.0)
    assert ledger.admit(key, limits, "one", 0, (), ())[0].limit == ""
    assert ledger.reserve(key, limits, "one", 0.6, WHEN) == ""
    valkey.client().flushall()
    ledger.renew(key, [Renewal("one", running=True, usd=0.6)])
    ledger.start_count(key, {"day": 0.0, "month": 0.0}, WHEN)
    assert admit(ledger, key, limits) == "concurrency"
    assert ledger.reserve(key, limits, "two", 0.5, WHEN) == "day"


def test_the_scripts_are_known_again_after_a_new_start_of_the_server(valkey: RunningValkey) -> None:
    client = SharedClient(valkey.url)
    ledger, key = Ledger(client), anew()
    assert admit(ledger, key, KeyLimits(concurrency=5)) == ""
    valkey.stop()
    valkey.start()
    assert eventually(lambda: client.check(lambda redis: redis.ping()))
    assert admit(ledger, key, KeyLimits(concurrency=5)) == ""
    client.close()


@pytest.mark.parametrize("usd", [0.000000001, 123456.789])
def test_amounts_are_exact_to_a_billionth(ledger: Ledger, usd: float) -> None:
    key, limits = started(ledger, daily=usd)
    assert ledger.reserve(key, limits, "one", usd, WHEN) == ""
    assert ledger.reserve(key, limits, "two", 0.000000001, WHEN) == "day"
