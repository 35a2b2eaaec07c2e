"""Caps of backends over several processes, each with a limiter of its own, at a real Valkey."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_router.dispatch.shared_caps import SharedCaps, share_caps
from ai_router.providers.registry import CLASSIFIER
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.limiter import ConcurrencyLimiter, Permit
from ai_router.shared.peers import RedisPeers
from ai_router.shared.start import ALONE, Shared, start_shared
from tests.fakes.router import eventually
from tests.fakes.valkey import RunningValkey, running_valkey

RULES = BreakerRules(failures_in_a_row=5, min_calls=20, open_s=1, max_open_s=30)
Join = Callable[..., tuple[ConcurrencyLimiter, Shared]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def join(valkey: RunningValkey) -> Iterator[Join]:
    """One more process that shares its caps."""
    valkey.client().flushall()
    with ExitStack() as closing:
        yield lambda cap: process(valkey, closing, cap)


def process(valkey: RunningValkey, closing: ExitStack, cap: int) -> tuple[ConcurrencyLimiter, Shared]:
    """A process that shares its caps, until ``closing``."""
    shared = start_shared(valkey.url, closing)
    assert isinstance(shared.peers, RedisPeers)
    assert shared.peers.wait_until_heard(10)
    limiter = ConcurrencyLimiter(cap, 1000, RULES)
    closing.callback(share_caps(limiter, shared, ["model"]))
    return limiter, shared


def take_all(limiter: ConcurrencyLimiter, name: str = "model") -> list[Permit]:
    """All that can be had now."""
    taken = []
    while (permit := limiter.acquire([name])) is not None:
        taken.append(permit)
    return taken


def take_until(limiter: ConcurrencyLimiter, count: int, taken: list[Permit] | None = None) -> list[Permit]:
    """Go on asking until so many calls are under way; fewer if that does not come to be."""
    taken = [] if taken is None else taken

    def asks() -> bool:
        taken.extend(take_all(limiter))
        return len(taken) >= count

    eventually(asks)
    return taken


def test_one_alone_has_all_of_it_at_once(join: Join) -> None:
    limiter, _ = join(6)
    assert len(take_all(limiter)) == 6


def test_two_that_want_all_of_it_have_a_half_each(join: Join) -> None:
    (one, _), (other, _) = join(6), join(6)
    held = {one: take_all(one), other: take_all(other)}

    def is_even() -> bool:
        # Whoever has more than its part gives up what ends.
        for limiter, permits in held.items():
            if len(permits) > 3:
                permits.pop().release()
            permits.extend(take_all(limiter))
            assert sum(map(len, held.values())) <= 6
        return [len(permits) for permits in held.values()] == [3, 3]

    assert eventually(is_even)


def test_what_one_does_not_want_another_gets(join: Join) -> None:
    (one, _), (other, _) = join(6), join(6)
    assert len(take_until(one, 6)) == 6
    assert not take_all(other)


def test_one_place_for_two_goes_to_and_fro(join: Join) -> None:
    (one, _), (other, _) = join(1), join(1)
    for limiter in (one, other, one, other):
        (permit,) = take_until(limiter, 1)
        assert not take_all(one)
        assert not take_all(other)
        permit.release()


def test_who_waits_in_the_queue_is_woken_when_a_share_comes_free_elsewhere(join: Join) -> None:
    (one, _), (other, _) = join(1), join(1)
    (held,) = take_until(one, 1)
    ticket = other.queue(["model"], "")
    assert ticket.wait(0.05) is None
    held.release()
    assert eventually(lambda: ticket.wait(1.0))


@settings(max_examples=6, deadline=None)
@given(cap=st.integers(1, 7), processes=st.integers(2, 4), hold_ms=st.integers(0, 4))
def test_there_are_never_more_calls_than_the_cap_and_nobody_starves(
    valkey: RunningValkey, cap: int, processes: int, hold_ms: int
) -> None:
    valkey.client().flushall()
    with ExitStack() as closing:
        limiters = [process(valkey, closing, cap)[0] for _ in range(processes)]
        lock, running, most, done = threading.Lock(), 0, 0, [0] * processes

        def call(index: int) -> None:
            nonlocal running, most
            for _ in range(4):
                ticket = limiters[index].queue(["model"], "")
                assert eventually(lambda ticket=ticket: ticket.wait(1.0), 30)
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(hold_ms / 1000)
                with lock:
                    running -= 1
                    done[index] += 1
                ticket.release()

        threads = [threading.Thread(target=call, args=[index]) for index in range(processes) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most <= cap
    assert done == [16] * processes


def test_where_one_place_is_never_free_each_still_has_its_turns(join: Join) -> None:
    limiters, done, over = [join(1)[0], join(1)[0]], [0, 0], threading.Event()

    def call_again_and_again(index: int) -> None:
        while not over.is_set():
            ticket = limiters[index].queue(["model"], "")
            while ticket.wait(0.1) is None and not over.is_set():
                pass
            done[index] += ticket.permit is not None
            ticket.release()

    threads = [threading.Thread(target=call_again_and_again, args=[index]) for index in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    served = eventually(lambda: min(done) >= 3, 20)
    over.set()
    for thread in threads:
        thread.join()
    assert served, done


def test_while_redis_is_away_each_has_its_part(join: Join, tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey, ExitStack() as closing:
        limiters = []
        for _ in range(2):
            shared = start_shared(valkey.url, closing)
            limiter = ConcurrencyLimiter(6, 1000, RULES)
            closing.callback(share_caps(limiter, shared, ["model"]))
            limiters.append((limiter, shared))
        assert eventually(lambda: all(shared.peers.count == 2 for _, shared in limiters))
        valkey.stop()
        assert eventually(lambda: not any(shared.client.works for _, shared in limiters))
        for limiter, _ in limiters:
            permits = take_all(limiter)
            assert len(permits) == 3
            for permit in permits:
                permit.release()
        valkey.start()
        assert eventually(lambda: all(shared.client.works for _, shared in limiters))
        assert len(take_until(limiters[0][0], 6)) == 6


def test_who_waits_while_redis_goes_away_is_let_in(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey, ExitStack() as closing:
        # Another process has all of it.
        valkey.client().hset("ai-router:cap:model", "another", f"2 2 {int(time.time() * 1000) + 600_000}")
        limiter = ConcurrencyLimiter(2, 10, RULES)
        closing.callback(share_caps(limiter, start_shared(valkey.url, closing), ["model"]))
        assert not take_all(limiter)
        ticket = limiter.queue(["model"], "")
        valkey.stop()
        assert eventually(ticket.woken.is_set)
        assert ticket.permit is not None


def test_what_a_dead_process_had_comes_free(valkey: RunningValkey) -> None:
    valkey.client().flushall()
    with ExitStack() as closing:
        dead, alive = start_shared(valkey.url, closing), start_shared(valkey.url, closing)
        limiter, other = ConcurrencyLimiter(4, 10, RULES), ConcurrencyLimiter(4, 10, RULES)
        held = SharedCaps(limiter, dead.client, dead.peers, lease_s=0.5)
        held._renew("model", 4, 4, 4)  # and never again
        closing.callback(share_caps(other, alive, ["model"]))
        assert not take_all(other)
        assert len(take_until(other, 4)) == 4


def test_a_process_that_ends_leaves_its_share_at_once(valkey: RunningValkey) -> None:
    valkey.client().flushall()
    with ExitStack() as closing:
        shared = start_shared(valkey.url, closing)
        end = share_caps(ConcurrencyLimiter(4, 10, RULES), shared, ["model"])
        assert valkey.client().hlen("ai-router:cap:model") == 1
        end()
        assert valkey.client().hlen("ai-router:cap:model") == 0


def test_a_default_that_is_about_threads_is_not_shared(join: Join, valkey: RunningValkey) -> None:
    with ExitStack() as closing:
        shared = start_shared(valkey.url, closing)
        limiter = ConcurrencyLimiter(5, 10, RULES, {CLASSIFIER: 4}, counts_streams=False)
        closing.callback(share_caps(limiter, shared, ["model", CLASSIFIER]))
        join(5)
        assert (len(take_all(limiter)), len(take_all(limiter, CLASSIFIER))) == (5, 4)
        assert not valkey.client().exists(f"ai-router:cap:{CLASSIFIER}")


def test_another_cap_counts_from_then_on(join: Join) -> None:
    limiter, _ = join(2)
    limiter.change(8, 10, {}, counts_streams=True)
    assert len(take_until(limiter, 8)) == 8


def test_alone_there_is_nothing_to_share() -> None:
    limiter = ConcurrencyLimiter(3, 10, RULES)
    share_caps(limiter, ALONE, ["model"])()
    assert len(take_all(limiter)) == 3
