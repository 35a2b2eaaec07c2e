"""Asking a second time when the first answer is late."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ai_router.errors import ClientGone, HedgeLost, ShuttingDown, Source, UpstreamFailed, UpstreamTimeout
from ai_router.http.calls import CancelScope, UpstreamCall
from ai_router.routing.hedge import Hedge

FAILED = UpstreamFailed("no", Source("classifier", "m"))


@pytest.fixture
def hedge() -> Iterator[Hedge[str]]:
    made: Hedge[str] = Hedge(4, 2.0, Source("classifier", "m"))
    yield made
    made.close()


class Calls:
    """The first call hangs until its call is aborted; later ones answer at once."""

    def __init__(self) -> None:
        self.upstream_calls: list[UpstreamCall] = []
        self.released = threading.Event()

    def __call__(self, call: UpstreamCall) -> str:
        self.upstream_calls.append(call)
        if len(self.upstream_calls) == 1:
            self.released.wait(10)
            return "late"
        return "soon"


def test_a_call_that_answers_in_time_is_made_once(hedge: Hedge[str]) -> None:
    upstream_calls = []
    assert hedge.first(lambda call: upstream_calls.append(call) or "yes", CancelScope().new_call) == "yes"
    assert (len(upstream_calls), hedge.second_calls) == (1, 0)


def test_a_hung_call_is_made_again_and_given_up(hedge: Hedge[str]) -> None:
    calls = Calls()
    assert hedge.first(calls, CancelScope().new_call) == "soon"
    assert isinstance(calls.upstream_calls[0].reason, HedgeLost)
    assert calls.upstream_calls[1].reason is None
    assert hedge.second_calls == 1
    calls.released.set()


def test_what_is_late_follows_from_what_is_usual(hedge: Hedge[str]) -> None:
    assert hedge.late_after_s() == 0.5, "a quarter of the deadline while too little is known"
    for _ in range(10):
        hedge.first(lambda _: "quick", CancelScope().new_call)
    assert hedge.late_after_s() == 0.25


def test_a_busy_classifier_is_not_asked_everything_twice(hedge: Hedge[str]) -> None:
    released = threading.Event()

    def stuck(_: UpstreamCall) -> str:
        released.wait(5)
        return "at last"

    asked = [threading.Thread(target=hedge.first, args=(stuck, CancelScope().new_call)) for _ in range(4)]
    for thread in asked:
        thread.start()
    threading.Event().wait(0.8)
    released.set()
    for thread in asked:
        thread.join()
    assert hedge.second_calls == 1


def test_a_failure_is_raised(hedge: Hedge[str]) -> None:
    def fails(_: UpstreamCall) -> str:
        raise FAILED

    with pytest.raises(UpstreamFailed):
        hedge.first(fails, CancelScope().new_call)


def test_the_second_call_may_save_what_the_first_loses(hedge: Hedge[str]) -> None:
    second_is_under_way, upstream_calls = threading.Event(), []

    def ask(call: UpstreamCall) -> str:
        upstream_calls.append(call)
        if len(upstream_calls) == 1:
            second_is_under_way.wait(10)
            raise FAILED
        second_is_under_way.set()
        return "saved"

    assert hedge.first(ask, CancelScope().new_call) == "saved"


def test_both_calls_share_one_deadline() -> None:
    hedge: Hedge[str] = Hedge(4, 0.8, Source("classifier", "m"))
    released, upstream_calls = threading.Event(), []

    def hangs(call: UpstreamCall) -> str:
        upstream_calls.append(call)
        released.wait(10)
        return "late"

    with pytest.raises(UpstreamTimeout, match=r"no answer within 0\.8 s"):
        hedge.first(hangs, CancelScope().new_call)
    assert len(upstream_calls) == 2
    assert all(isinstance(call.reason, HedgeLost) for call in upstream_calls)
    released.set()
    hedge.close()


def test_an_abort_wins_over_a_failure(hedge: Hedge[str]) -> None:
    upstream_calls, both = [], threading.Barrier(2)

    def ask(call: UpstreamCall) -> str:
        upstream_calls.append(call)
        first = len(upstream_calls) == 1
        both.wait(10)
        raise FAILED if first else ClientGone

    with pytest.raises(ClientGone):
        hedge.first(ask, CancelScope().new_call)


def test_after_the_end_nothing_is_begun() -> None:
    hedge: Hedge[str] = Hedge(1, 2.0, Source("classifier", "m"))
    hedge.close()
    with pytest.raises(ShuttingDown):
        hedge.first(lambda _: "x", CancelScope().new_call)
