"""Permits for calls, and the queue of those who wait for one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ai_router.resilience.breaker import BreakerRules, State, Why
from ai_router.resilience.limiter import ConcurrencyLimiter, Permit, QueueTicket
from ai_router.resilience.queue_ticket import QueueFull

RULES = BreakerRules(failures_in_a_row=2, open_s=1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(2, 3, RULES, {"narrow": 1}, clock, random_source=lambda: 0.5)


def acquired(limiter: ConcurrencyLimiter, name: str = "a") -> Permit:
    permit = limiter.acquire([name])
    assert permit is not None
    return permit


def test_as_many_as_the_cap_allows(limiter: ConcurrencyLimiter) -> None:
    first, _ = acquired(limiter), acquired(limiter)
    assert limiter.acquire(["a"]) is None
    first.release()
    first.release()
    acquired(limiter)
    assert limiter.acquire(["a"]) is None, "a permit is released once"


def test_a_backend_may_have_a_cap_of_its_own(limiter: ConcurrencyLimiter) -> None:
    acquired(limiter, "narrow")
    assert limiter.acquire(["narrow"]) is None


def test_the_first_that_admits_is_taken(limiter: ConcurrencyLimiter) -> None:
    acquired(limiter, "narrow")
    permit = limiter.acquire(["narrow", "a"])
    assert permit is not None
    assert permit.backend == "a"


def test_a_begun_stream_frees_its_permit_where_the_cap_counts_only_calls_that_have_not_begun(clock: Clock) -> None:
    limiter = ConcurrencyLimiter(2, 3, BreakerRules(), {"narrow": 1}, clock, counts_streams=False)
    streams = [acquired(limiter) for _ in range(2)]
    assert limiter.acquire(["a"]) is None
    for stream in streams:
        stream.stream_begun()
        stream.stream_begun()
    waiting = [acquired(limiter) for _ in range(2)]
    assert limiter.acquire(["a"]) is None, "a backend of eight slots streams eight, and two more wait at it"
    assert limiter.report("a").in_flight == 4
    for permit in (*streams, *waiting):
        permit.release()
        permit.release()
    assert [limiter.acquire(["a"]) is not None for _ in range(3)] == [True, True, False]


def test_a_cap_of_a_backend_s_own_counts_streams_until_their_end(limiter: ConcurrencyLimiter, clock: Clock) -> None:
    apart = ConcurrencyLimiter(2, 3, BreakerRules(), {"narrow": 1}, clock, counts_streams=False)
    for several in (limiter, apart):
        acquired(several, "narrow").stream_begun()
        assert several.acquire(["narrow"]) is None


def test_a_waiting_request_gets_a_permit_when_a_stream_that_does_not_count_begins(clock: Clock) -> None:
    limiter = ConcurrencyLimiter(1, 3, BreakerRules(), {}, clock, counts_streams=False)
    stream = acquired(limiter)
    ticket = limiter.queue(["a"], "")
    stream.stream_begun()
    assert ticket.permit is not None


def test_only_below_so_many(limiter: ConcurrencyLimiter) -> None:
    acquired(limiter)
    assert limiter.acquire(["a"], below=1) is None
    assert limiter.acquire(["a"], below=2) is not None


def test_a_waiting_request_gets_the_permit_that_is_released(limiter: ConcurrencyLimiter) -> None:
    permit = acquired(limiter, "narrow")
    ticket = limiter.queue(["narrow"], "")
    assert ticket.wait(0) is None
    permit.release()
    granted = ticket.wait(0)
    assert granted is not None
    assert granted.backend == "narrow"


def test_a_newcomer_does_not_overtake_those_who_wait(limiter: ConcurrencyLimiter) -> None:
    first, second = acquired(limiter), acquired(limiter)
    ticket = limiter.queue(["a"], "")
    first.release()
    second.release()
    assert ticket.permit is not None
    assert limiter.acquire(["a"]) is not None
    waiting = limiter.queue(["narrow"], "")
    assert limiter.acquire(["narrow"]) is None, "a waiting request gets it"
    assert waiting.permit is not None


def test_clients_are_served_in_rotation(clock: Clock) -> None:
    limiter = ConcurrencyLimiter(1, 10, RULES, None, clock)
    permit: Permit | None = acquired(limiter)
    tickets = {name: limiter.queue(["a"], name[0]) for name in ("x1", "x2", "x3", "y1")}
    served = []
    while permit is not None:
        permit.release()
        name, ticket = next(((n, t) for n, t in tickets.items() if t.permit), (None, None))
        if name is None or ticket is None:
            break
        served.append(name)
        del tickets[name]
        permit = ticket.permit
    assert served == ["x1", "y1", "x2", "x3"]


def test_the_queue_is_bounded(limiter: ConcurrencyLimiter) -> None:
    acquired(limiter, "narrow")
    for _ in range(3):
        limiter.queue(["narrow"], "")
    with pytest.raises(QueueFull):
        limiter.queue(["narrow"], "")


def test_releasing_a_ticket_releases_a_permit_that_came_just_now(limiter: ConcurrencyLimiter) -> None:
    permit = acquired(limiter, "narrow")
    ticket = limiter.queue(["narrow"], "")
    permit.release()
    assert ticket.permit is not None
    ticket.release()
    assert limiter.report("narrow").in_flight == 0


def test_a_cooldown_is_waited_out_and_one_goes_first(limiter: ConcurrencyLimiter, clock: Clock) -> None:
    permit = acquired(limiter)
    permit.limited(5)
    permit.release()
    assert limiter.blocked_for("a") == (5, Why.LIMITED)
    first, second = limiter.queue(["a"], ""), limiter.queue(["a"], "")
    assert first.estimate() == (1, 5)
    clock.now += 5
    probe = first.wait(0)
    assert probe is not None
    assert second.wait(0) is None, "one probe at a time"
    probe.succeeded()
    assert second.permit is not None


def test_after_a_cooldown_the_queue_is_admitted_a_few_at_a_time(clock: Clock) -> None:
    limiter = ConcurrencyLimiter(100, 100, RULES, None, clock)
    permit = acquired(limiter)
    permit.limited(5)
    permit.release()
    tickets = [limiter.queue(["a"], "") for _ in range(12)]
    clock.now += 5
    admitted = []
    for _ in range(4):
        limiter.admit_waiting()
        permitted = [ticket for ticket in tickets if ticket.permit is not None]
        admitted.append(len(permitted))
        assert permitted[0].permit is not None
        permitted[0].permit.succeeded()
    assert admitted == [1, 2, 4, 8]


def test_a_429_without_a_time_is_waited_for_longer_each_time(limiter: ConcurrencyLimiter, clock: Clock) -> None:
    waits = []
    for _ in range(5):
        permit = acquired(limiter)
        permit.limited(None)
        permit.release()
        waits.append(limiter.blocked_for("a")[0])
        clock.now += waits[-1]
    assert waits == [1, 2, 4, 8, 8]


def test_a_call_without_a_result_says_nothing_of_the_backend(limiter: ConcurrencyLimiter) -> None:
    for _ in range(5):
        acquired(limiter).release()
    assert limiter.report("a").state is State.CLOSED


def test_a_request_that_waits_for_several_takes_the_first_that_admits(
    limiter: ConcurrencyLimiter, clock: Clock
) -> None:
    for name, seconds in (("a", 9), ("b", 3)):
        permit = acquired(limiter, name)
        permit.limited(seconds)
        permit.release()
    ticket = limiter.queue(["a", "b"], "")
    assert ticket.estimate() == (1, 3)
    clock.now += 3
    granted = ticket.wait(0)
    assert granted is not None
    assert granted.backend == "b"


def test_a_wake_up_is_no_permit(limiter: ConcurrencyLimiter) -> None:
    acquired(limiter, "narrow")
    ticket = limiter.queue(["narrow"], "")
    threading.Timer(0.01, ticket.wake).start()
    assert ticket.wait(30) is None


def test_a_permit_that_came_free_before_the_wait_began_is_seen(limiter: ConcurrencyLimiter) -> None:
    permit = acquired(limiter, "narrow")
    ticket = limiter.queue(["narrow"], "")
    ticket.woken.clear()
    permit.release()
    ticket.woken.clear()
    assert ticket.wait(3600) is not None, "without being woken"


def test_a_request_that_waits_for_a_full_backend_is_woken_when_its_breaker_opens(
    limiter: ConcurrencyLimiter, clock: Clock
) -> None:
    permit = acquired(limiter, "narrow")
    ticket = limiter.queue(["narrow"], "")
    permit.limited(2)
    assert ticket.woken.is_set(), "it has to wait for the breaker now"
    permit.release()
    assert ticket.wait(0) is None
    clock.now += 2
    assert ticket.wait(0) is not None


def test_repeated_retry_after_0_is_waited_for_longer_each_time(limiter: ConcurrencyLimiter, clock: Clock) -> None:
    waits = []
    for _ in range(5):
        permit = acquired(limiter)
        permit.limited(0)
        permit.release()
        waits.append(limiter.blocked_for("a")[0])
        clock.now += waits[-1]
    assert waits == [0, 1, 2, 4, 8]


def test_a_backend_that_wants_to_be_left_alone_for_years_is_asked_again_after_a_minute(
    limiter: ConcurrencyLimiter,
) -> None:
    acquired(limiter).limited(2.5e11)
    assert limiter.blocked_for("a")[0] == 60


def test_what_came_of_a_call_from_before_the_opening_is_old_news(limiter: ConcurrencyLimiter, clock: Clock) -> None:
    old, last = acquired(limiter), acquired(limiter)
    last.limited(5)
    last.release()
    clock.now += 5
    probe = acquired(limiter)
    old.succeeded()
    old.release()
    assert limiter.report("a").state is State.HALF_OPEN
    assert limiter.acquire(["a"]) is None, "the probe is still out"
    probe.succeeded()
    assert limiter.report("a").state is State.CLOSED


class AnyUse(RuleBasedStateMachine):
    """Calls come, wait, succeed, fail and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limiter = ConcurrencyLimiter(2, 4, RULES, None, self.clock)
        self.permits: list[Permit] = []
        self.tickets: list[QueueTicket] = []

    @rule()
    def acquire(self) -> None:
        permit = self.limiter.acquire(["a"])
        self.permits += [permit] if permit else []

    @rule(client=st.sampled_from("xy"))
    def queue(self, client: str) -> None:
        if self.limiter.waiting < 4:
            self.tickets.append(self.limiter.queue(["a"], client))

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.limiter.admit_waiting()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def release_ticket(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        ticket.release()

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), report=st.sampled_from([Permit.succeeded, Permit.failed, Permit.misconfigured]))
    def report_result(self, data: st.DataObject, report: Callable[[Permit], None]) -> None:
        report(data.draw(st.sampled_from(self.permits)))

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), seconds=st.none() | st.floats(0, 5))
    def limit(self, data: st.DataObject, seconds: float | None) -> None:
        data.draw(st.sampled_from(self.permits)).limited(seconds)

    @precondition(lambda self: self.permits)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.permits.remove(permit)
        permit.release()

    @invariant()
    def no_cap_is_exceeded_and_the_counts_are_right(self) -> None:
        self._collect()
        report = self.limiter.report("a")
        assert report.in_flight == len(self.permits) <= 2
        assert report.waiting == len(self.tickets)

    def teardown(self) -> None:
        """In the end every request that still waits is served."""
        for _ in range(len(self.tickets) + len(self.permits) + 1):
            self.clock.now += 100
            self.limiter.admit_waiting()
            self._collect()
            for permit in self.permits:
                permit.succeeded()
                permit.release()
            self.permits.clear()
        assert not self.tickets

    def _collect(self) -> None:
        self.permits += [ticket.permit for ticket in self.tickets if ticket.permit is not None]
        self.tickets = [ticket for ticket in self.tickets if ticket.permit is None]


TestAnyUse = AnyUse.TestCase
