"""The gates and the queue before them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ai_router.resilience.breaker import BreakerRules, State, Why
from ai_router.resilience.limiter import Gates, Pass, RoomFull, Ticket

RULES = BreakerRules(in_a_row=2, open_s=1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gates(clock: Clock) -> Gates:
    return Gates(2, 3, RULES, {"narrow": 1}, clock, chance=lambda: 0.5)


def entered(gates: Gates, name: str = "a") -> Pass:
    place = gates.enter([name])
    assert place is not None
    return place


def test_as_many_as_the_cap_allows(gates: Gates) -> None:
    first, _ = entered(gates), entered(gates)
    assert gates.enter(["a"]) is None
    first.leave()
    first.leave()
    entered(gates)
    assert gates.enter(["a"]) is None, "leaving twice is leaving once"


def test_a_gate_may_have_a_cap_of_its_own(gates: Gates) -> None:
    entered(gates, "narrow")
    assert gates.enter(["narrow"]) is None


def test_the_first_that_admits_is_taken(gates: Gates) -> None:
    entered(gates, "narrow")
    place = gates.enter(["narrow", "a"])
    assert place is not None
    assert place.gate == "a"


def test_only_below_so_many(gates: Gates) -> None:
    entered(gates)
    assert gates.enter(["a"], below=1) is None
    assert gates.enter(["a"], below=2) is not None


def test_who_waits_is_called_when_somebody_leaves(gates: Gates) -> None:
    place = entered(gates, "narrow")
    ticket = gates.queue(["narrow"], "")
    assert ticket.wait(0) is None
    place.leave()
    granted = ticket.wait(0)
    assert granted is not None
    assert granted.gate == "narrow"


def test_a_newcomer_passes_nobody(gates: Gates) -> None:
    first, second = entered(gates), entered(gates)
    ticket = gates.queue(["a"], "")
    first.leave()
    second.leave()
    assert ticket.granted is not None
    assert gates.enter(["a"]) is not None
    waiting = gates.queue(["narrow"], "")
    assert gates.enter(["narrow"]) is None, "somebody waits for it, and gets it"
    assert waiting.granted is not None


def test_clients_take_turns(clock: Clock) -> None:
    gates = Gates(1, 10, RULES, None, clock)
    place: Pass | None = entered(gates)
    tickets = {name: gates.queue(["a"], name[0]) for name in ("x1", "x2", "x3", "y1")}
    served = []
    while place is not None:
        place.leave()
        name, ticket = next(((n, t) for n, t in tickets.items() if t.granted), (None, None))
        if name is None or ticket is None:
            break
        served.append(name)
        del tickets[name]
        place = ticket.granted
    assert served == ["x1", "y1", "x2", "x3"]


def test_the_room_is_bounded(gates: Gates) -> None:
    entered(gates, "narrow")
    for _ in range(3):
        gates.queue(["narrow"], "")
    with pytest.raises(RoomFull):
        gates.queue(["narrow"], "")


def test_whoever_leaves_the_queue_gives_up_a_pass_that_came_just_now(gates: Gates) -> None:
    place = entered(gates, "narrow")
    ticket = gates.queue(["narrow"], "")
    place.leave()
    assert ticket.granted is not None
    ticket.leave()
    assert gates.report("narrow").in_flight == 0


def test_a_cooldown_is_waited_out_and_one_goes_first(gates: Gates, clock: Clock) -> None:
    place = entered(gates)
    place.limited(5)
    place.leave()
    assert gates.closed_for("a") == (5, Why.LIMITED)
    first, second = gates.queue(["a"], ""), gates.queue(["a"], "")
    assert first.outlook() == (1, 5)
    clock.now += 5
    probe = first.wait(0)
    assert probe is not None
    assert second.wait(0) is None, "one probe at a time"
    probe.succeeded()
    assert second.granted is not None


def test_after_a_cooldown_the_queue_is_let_in_by_and_by(clock: Clock) -> None:
    gates = Gates(100, 100, RULES, None, clock)
    place = entered(gates)
    place.limited(5)
    place.leave()
    tickets = [gates.queue(["a"], "") for _ in range(12)]
    clock.now += 5
    let_in = []
    for _ in range(4):
        gates.admit_waiting()
        inside = [ticket for ticket in tickets if ticket.granted is not None]
        let_in.append(len(inside))
        assert inside[0].granted is not None
        inside[0].granted.succeeded()
    assert let_in == [1, 2, 4, 8]


def test_a_429_without_a_time_is_waited_for_longer_each_time(gates: Gates, clock: Clock) -> None:
    waits = []
    for _ in range(5):
        place = entered(gates)
        place.limited(None)
        place.leave()
        waits.append(gates.closed_for("a")[0])
        clock.now += waits[-1]
    assert waits == [1, 2, 4, 8, 8]


def test_a_call_that_was_given_up_says_nothing_of_the_backend(gates: Gates) -> None:
    for _ in range(5):
        entered(gates).leave()
    assert gates.report("a").state is State.CLOSED


def test_one_who_waits_for_several_takes_the_first_that_opens(gates: Gates, clock: Clock) -> None:
    for name, seconds in (("a", 9), ("b", 3)):
        place = entered(gates, name)
        place.limited(seconds)
        place.leave()
    ticket = gates.queue(["a", "b"], "")
    assert ticket.outlook() == (1, 3)
    clock.now += 3
    granted = ticket.wait(0)
    assert granted is not None
    assert granted.gate == "b"


def test_a_wake_up_is_no_pass(gates: Gates) -> None:
    entered(gates, "narrow")
    ticket = gates.queue(["narrow"], "")
    threading.Timer(0.01, ticket.wake).start()
    assert ticket.wait(30) is None


def test_a_place_that_came_free_before_the_wait_began_is_seen(gates: Gates) -> None:
    place = entered(gates, "narrow")
    ticket = gates.queue(["narrow"], "")
    ticket.called.clear()
    place.leave()
    ticket.called.clear()
    assert ticket.wait(3600) is not None, "without being woken"


def test_who_waits_at_a_full_gate_learns_that_its_breaker_has_opened(gates: Gates, clock: Clock) -> None:
    place = entered(gates, "narrow")
    ticket = gates.queue(["narrow"], "")
    place.limited(2)
    assert ticket.called.is_set(), "it has to wait for another thing now"
    place.leave()
    assert ticket.wait(0) is None
    clock.now += 2
    assert ticket.wait(0) is not None


def test_a_retry_after_of_nothing_is_not_taken_at_its_word_for_ever(gates: Gates, clock: Clock) -> None:
    waits = []
    for _ in range(5):
        place = entered(gates)
        place.limited(0)
        place.leave()
        waits.append(gates.closed_for("a")[0])
        clock.now += waits[-1]
    assert waits == [0, 1, 2, 4, 8]


def test_a_backend_that_wants_to_be_left_alone_for_years_is_asked_again_after_an_hour(gates: Gates) -> None:
    entered(gates).limited(2.5e11)
    assert gates.closed_for("a")[0] == 3600


def test_what_came_of_a_call_from_before_the_opening_is_old_news(gates: Gates, clock: Clock) -> None:
    old, last = entered(gates), entered(gates)
    last.limited(5)
    last.leave()
    clock.now += 5
    probe = entered(gates)
    old.succeeded()
    old.leave()
    assert gates.report("a").state is State.HALF_OPEN
    assert gates.enter(["a"]) is None, "the probe is still out"
    probe.succeeded()
    assert gates.report("a").state is State.CLOSED


class AnyUse(RuleBasedStateMachine):
    """Calls come, wait, succeed, fail and leave in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.gates = Gates(2, 4, RULES, None, self.clock)
        self.places: list[Pass] = []
        self.tickets: list[Ticket] = []

    @rule()
    def enter(self) -> None:
        place = self.gates.enter(["a"])
        self.places += [place] if place else []

    @rule(client=st.sampled_from("xy"))
    def queue(self, client: str) -> None:
        if self.gates.waiting < 4:
            self.tickets.append(self.gates.queue(["a"], client))

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.gates.admit_waiting()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def give_up_waiting(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        ticket.leave()

    @precondition(lambda self: self.places)
    @rule(data=st.data(), news=st.sampled_from([Pass.succeeded, Pass.failed, Pass.misconfigured]))
    def tell(self, data: st.DataObject, news: Callable[[Pass], None]) -> None:
        news(data.draw(st.sampled_from(self.places)))

    @precondition(lambda self: self.places)
    @rule(data=st.data(), seconds=st.none() | st.floats(0, 5))
    def limit(self, data: st.DataObject, seconds: float | None) -> None:
        data.draw(st.sampled_from(self.places)).limited(seconds)

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.places))
        self.places.remove(place)
        place.leave()

    @invariant()
    def no_gate_is_overfull_and_the_counts_are_right(self) -> None:
        self._collect()
        report = self.gates.report("a")
        assert report.in_flight == len(self.places) <= 2
        assert report.waiting == len(self.tickets)

    def teardown(self) -> None:
        """In the end everybody who still waits is served."""
        for _ in range(len(self.tickets) + len(self.places) + 1):
            self.clock.now += 100
            self.gates.admit_waiting()
            self._collect()
            for place in self.places:
                place.succeeded()
                place.leave()
            self.places.clear()
        assert not self.tickets

    def _collect(self) -> None:
        self.places += [ticket.granted for ticket in self.tickets if ticket.granted is not None]
        self.tickets = [ticket for ticket in self.tickets if ticket.granted is None]


TestAnyUse = AnyUse.TestCase
