"""Judgements in SQLite and in PostgreSQL, and the budget that all processes share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ai_router.storage import judgements as judgements_module
from ai_router.storage.judgements import JudgementStore

VALUES = {"session_id": "s1", "route": "primary", "local": "primary/m", "cloud": "xai/g", "judge": "openai/j"}


@pytest.fixture
def store(database: str) -> Iterator[JudgementStore]:
    store = JudgementStore(database)
    yield store
    store.close()


def test_a_judgement_costs_the_most_until_it_is_settled(store: JudgementStore) -> None:
    judgement = store.reserve(VALUES, 0.4, 1.0, 30)
    assert judgement is not None
    assert (store.spent(), store.all(), store.judged()) == (0.4, [], {"s1"})
    store.settle(judgement, "local", contradicted=False, usd=0.1)
    (row,) = store.all()
    assert (row["winner"], row["route"], row["usd"], store.spent()) == ("local", "primary", 0.1, 0.1)


def test_a_cost_that_nobody_knows_stays_at_the_most(store: JudgementStore) -> None:
    judgement = store.reserve(VALUES, 0.4, 1.0, 30)
    assert judgement is not None
    store.settle(judgement, "none", contradicted=False, usd=None)
    assert store.spent() == 0.4


def test_nothing_is_begun_that_the_budget_may_not_suffice_for(store: JudgementStore) -> None:
    assert store.reserve(VALUES, 0.75, 1.0, 30) is not None
    assert store.reserve(VALUES, 0.26, 1.0, 30) is None
    assert store.reserve(VALUES, 0.25, 1.0, 30) is not None
    assert store.spent() == 1.0


def test_several_that_reserve_at_once_do_not_spend_the_same_money(database: str) -> None:
    stores = [JudgementStore(database) for _ in range(8)]
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda store: [store.reserve(VALUES, 0.1, 1.0, 30) for _ in range(5)], stores))
        assert sum(one is not None for each in found for one in each) == 10
    finally:
        for store in stores:
            store.close()


def test_a_month_does_not_count_for_the_next(store: JudgementStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgements_module.time, "time", lambda: 1_700_000_000.0)
    assert store.reserve(VALUES, 1.0, 1.0, 100_000) is not None
    monkeypatch.undo()
    assert store.spent() == 0
    assert store.reserve(VALUES, 1.0, 1.0, 100_000) is not None


def test_old_ones_are_deleted_but_none_of_this_month(store: JudgementStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgements_module.time, "time", lambda: 1_700_000_000.0)
    store.reserve({**VALUES, "session_id": "old"}, 0.1, 1.0, 1)
    monkeypatch.undo()
    store.reserve({**VALUES, "session_id": "new"}, 0.1, 1.0, 1)
    assert store.judged() == {"new"}
