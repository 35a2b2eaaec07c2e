"""A second search where the first takes unusually long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ai_router.dispatch.dispatcher import WaitDriver
from ai_router.dispatch.hedged_search import BegunSearch, Findings, FutureWait, first_to_find
from ai_router.errors import HedgeLost, Source, UpstreamFailed
from ai_router.http.calls import UpstreamCall
from ai_router.resilience.lateness import Lateness

SOON = Lateness(0.04, least_s=0.0, share=1.0)
"""A search is late after a hundredth of a second: nothing is known of what is usual."""


class Searches:
    """Searches that end when they are told to. Those that are given up end by themselves."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(4)
        self.begun: list[BegunSearch] = []

    def begin(self, go: threading.Event, failure: Exception | None = None, text: str = "") -> BegunSearch:
        call = UpstreamCall()
        call.on_abort(go.set)

        def search() -> Findings:
            assert go.wait(10)
            call.raise_if_aborted()
            if failure is not None:
                raise failure
            return Findings(text, {})

        self.begun.append(BegunSearch(self.threads.submit(search), call))
        return self.begun[-1]


@pytest.fixture
def searches() -> Iterator[Searches]:
    made = Searches()
    yield made
    made.threads.shutdown()


def event(*, is_set: bool = True) -> threading.Event:
    made = threading.Event()
    if is_set:
        made.set()
    return made


def found(first: BegunSearch, second: object, lateness: Lateness | None = SOON) -> BegunSearch:
    driver = WaitDriver(first_to_find(first, second, lateness))  # type: ignore[arg-type]
    driver.run_for(10)
    return driver.result


def never() -> None:
    raise AssertionError("nobody else is to be asked")


def test_who_finds_in_time_is_the_only_one_asked(searches: Searches) -> None:
    lateness = Lateness(40.0, least_s=0.0, share=1.0)
    assert found(searches.begin(event(), text="rain"), never, lateness).future.result().text == "rain"
    assert lateness.second_calls == 0


def test_who_takes_long_is_given_up_once_another_has_found_something(searches: Searches) -> None:
    first = searches.begin(event(is_set=False))
    winner = found(first, lambda: searches.begin(event(), text="sun"))
    assert winner.future.result().text == "sun"
    assert isinstance(first.call.reason, HedgeLost)
    assert winner.call.reason is None


def test_one_that_still_waits_for_a_thread_is_never_made(searches: Searches) -> None:
    busy = [searches.begin(event(is_set=False)) for _ in range(4)]
    waits = searches.begin(event(), text="rain")
    elsewhere = Searches()
    assert found(waits, lambda: elsewhere.begin(event(), text="sun")).future.result().text == "sun"
    assert waits.future.cancelled()
    for other in busy:
        other.call.abort(HedgeLost("enough"))
    elsewhere.threads.shutdown()


def test_a_second_that_fails_leaves_it_to_the_first(searches: Searches) -> None:
    go = event(is_set=False)
    first = searches.begin(go, text="rain")

    def second() -> BegunSearch:
        begun = searches.begin(event(), UpstreamFailed("no", Source("b", "m")))
        begun.future.add_done_callback(lambda _: go.set())
        return begun

    assert found(first, second) is first


def test_if_both_fail_the_first_failure_is_told(searches: Searches) -> None:
    go, failure = event(is_set=False), UpstreamFailed("the first", Source("a", "m"))
    first = searches.begin(go, failure)

    def second() -> BegunSearch:
        begun = searches.begin(event(), UpstreamFailed("the second", Source("b", "m")))
        begun.future.add_done_callback(lambda _: go.set())
        return begun

    with pytest.raises(UpstreamFailed, match="the first"):
        found(first, second)


def test_where_nobody_else_can_be_asked_the_first_is_waited_for(searches: Searches) -> None:
    go = event(is_set=False)
    first = searches.begin(go, text="rain")

    def nobody() -> None:
        go.set()

    assert found(first, nobody) is first


def test_only_a_share_is_searched_twice(searches: Searches) -> None:
    lateness = Lateness(0.04, least_s=0.0, share=0.1)
    twice = []
    for _ in range(8):
        go = event(is_set=False)

        def second(go: threading.Event = go) -> BegunSearch:
            twice.append(go)
            return searches.begin(event(), text="sun")

        first = searches.begin(go, text="rain")
        threading.Timer(0.1, go.set).start()
        found(first, second, lateness)
    assert len(twice) <= 2


def test_the_wait_is_over_with_the_first_of_them_or_at_its_end(searches: Searches) -> None:
    go = event(is_set=False)
    both = [searches.begin(event(is_set=False)), searches.begin(go, text="rain")]
    assert not FutureWait(both).wait(0)
    assert FutureWait(both, end=0.0).wait(60)
    go.set()
    assert FutureWait(both).wait(60)
    both[0].call.abort(HedgeLost("the test is over"))
