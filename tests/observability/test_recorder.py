"""Outcomes, priced and given to sinks on a background thread."""

from __future__ import annotations

from ai_router.observability.recorder import Recorder
from ai_router.types import Cost, Outcome
from tests.outcomes import FREE, outcome


def test_keepers_are_given_each_outcome_with_its_cost() -> None:
    kept: list[tuple[Outcome, Cost]] = []
    recorder = Recorder(lambda _: FREE, [lambda taken, cost: kept.append((taken, cost))], lambda: None)
    recorder.start()
    finished = outcome()
    recorder.take(finished)
    recorder.flush()
    assert kept == [(finished, FREE)]
    recorder.close()


def test_a_keeper_that_fails_keeps_nothing_from_the_others() -> None:
    def fails(_: Outcome, __: Cost) -> None:
        raise RuntimeError("no")

    kept: list[Outcome] = []
    recorder = Recorder(lambda _: FREE, [fails, lambda taken, _: kept.append(taken)], lambda: None)
    recorder.start()
    recorder.take(outcome())
    recorder.take(outcome())
    recorder.close()
    assert len(kept) == 2


def test_an_outcome_whose_price_cannot_be_worked_out_is_kept_as_one_of_unknown_cost() -> None:
    def price(taken: Outcome) -> Cost:
        if taken.route == "broken":
            raise ValueError(taken.route)
        return FREE

    kept: list[tuple[str, bool]] = []
    recorder = Recorder(price, [lambda taken, cost: kept.append((taken.route, cost.usd is None))], lambda: None)
    recorder.start()
    for route in ("primary", "broken", "xai"):
        recorder.take(outcome(route=route))
    recorder.close()
    assert kept == [("primary", False), ("broken", True), ("xai", False)]
