"""Asking a second time when the first answer is late."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ai_router.errors import ClientGone, HedgeLost, ShuttingDown, Source, UpstreamFailed, UpstreamTimeout
from ai_router.http.calls import CancelScope, Leg
from ai_router.routing.hedge import Hedge

FAILED = UpstreamFailed("no", Source("classifier", "m"))


@pytest.fixture
def hedge() -> Iterator[Hedge[str]]:
    made: Hedge[str] = Hedge(4, 2.0, Source("classifier", "m"))
    yield made
    made.close()


class Calls:
    """The first call hangs until its leg is aborted; later ones answer at once."""

    def __init__(self) -> None:
        self.legs: list[Leg] = []
        self.released = threading.Event()

    def __call__(self, leg: Leg) -> str:
        self.legs.append(leg)
        if len(self.legs) == 1:
            self.released.wait(10)
            return "late"
        return "soon"


def test_a_call_that_answers_in_time_is_made_once(hedge: Hedge[str]) -> None:
    legs = []
    assert hedge.first(lambda leg: legs.append(leg) or "yes", CancelScope().leg) == "yes"
    assert (len(legs), hedge.second_calls) == (1, 0)


def test_a_hung_call_is_made_again_and_given_up(hedge: Hedge[str]) -> None:
    calls = Calls()
    assert hedge.first(calls, CancelScope().leg) == "soon"
    assert isinstance(calls.legs[0].reason, HedgeLost)
    assert calls.legs[1].reason is None
    assert hedge.second_calls == 1
    calls.released.set()


def test_what_is_late_follows_from_what_is_usual(hedge: Hedge[str]) -> None:
    assert hedge.late_after_s() == 0.5, "a quarter of the deadline while too little is known"
    for _ in range(10):
        hedge.first(lambda _: "quick", CancelScope().leg)
    assert hedge.late_after_s() == 0.25


def test_a_busy_classifier_is_not_asked_everything_twice(hedge: Hedge[str]) -> None:
    released = threading.Event()

    def stuck(_: Leg) -> str:
        released.wait(5)
        return "at last"

    asked = [threading.Thread(target=hedge.first, args=(stuck, CancelScope().leg)) for _ in range(4)]
    for thread in asked:
        thread.start()
    threading.Event().wait(0.8)
    released.set()
    for thread in asked:
        thread.join()
    assert hedge.second_calls == 1


def test_a_failure_is_raised(hedge: Hedge[str]) -> None:
    def fails(_: Leg) -> str:
        raise FAILED

    with pytest.raises(UpstreamFailed):
        hedge.first(fails, CancelScope().leg)


def test_the_second_call_may_save_what_the_first_loses(hedge: Hedge[str]) -> None:
    second_is_under_way, legs = threading.Event(), []

    def call(leg: Leg) -> str:
        legs.append(leg)
        if len(legs) == 1:
            second_is_under_way.wait(10)
            raise FAILED
        second_is_under_way.set()
        return "saved"

    assert hedge.first(call, CancelScope().leg) == "saved"


def test_both_calls_share_one_deadline() -> None:
    hedge: Hedge[str] = Hedge(4, 0.8, Source("classifier", "m"))
    released, legs = threading.Event(), []

    def hangs(leg: Leg) -> str:
        legs.append(leg)
        released.wait(10)
        return "late"

    with pytest.raises(UpstreamTimeout, match=r"no answer within 0\.8 s"):
        hedge.first(hangs, CancelScope().leg)
    assert len(legs) == 2
    assert all(isinstance(leg.reason, HedgeLost) for leg in legs)
    released.set()
    hedge.close()


def test_an_abort_wins_over_a_failure(hedge: Hedge[str]) -> None:
    legs, both = [], threading.Barrier(2)

    def call(leg: Leg) -> str:
        legs.append(leg)
        first = len(legs) == 1
        both.wait(10)
        raise FAILED if first else ClientGone

    with pytest.raises(ClientGone):
        hedge.first(call, CancelScope().leg)


def test_after_the_end_nothing_is_begun() -> None:
    hedge: Hedge[str] = Hedge(1, 2.0, Source("classifier", "m"))
    hedge.close()
    with pytest.raises(ShuttingDown):
        hedge.first(lambda _: "x", CancelScope().leg)
