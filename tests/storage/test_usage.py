"""Rows of usage in SQLite and in PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ai_router.errors import StoreUnavailable
from ai_router.storage import database as database_module
from ai_router.storage.database import REVISION, migrate, open_database
from ai_router.storage.tables import metadata
from ai_router.storage.usage import UsageStore
from ai_router.storage.usage_rows import RowRefused, Rows, rows_of
from ai_router.types import CallCost, Cost, Purpose, Status, Usage
from tests.chat_requests import chat_request
from tests.outcomes import FREE, attempt, call, outcome

PAID = Cost(0.03, ("provider",), usage=Usage(100, 50, 20, 10), by_call={1: CallCost(Usage(100, 50), 0.03)})
TODAY = ("2026-11-21", "2026-11-21", None)


@pytest.fixture
def store(database: str) -> Iterator[UsageStore]:
    store = UsageStore(database)
    yield store
    store.close()


def rows(session: str, cost: Cost = FREE, **changes: Any) -> Rows:
    day = changes.pop("day", 21)
    request = chat_request(
        session_id=session,
        timestamp=datetime(2026, 11, day, 19, 56, tzinfo=UTC),
        client=changes.pop("client", ""),
        organization=changes.pop("organization", ""),
    )
    finished = outcome(request=request, **changes)
    return rows_of(finished, cost, lambda backend: backend == "primary")


def cloud(session: str, **changes: Any) -> Rows:
    return rows(
        session,
        PAID,
        route="xai",
        model="grok",
        attempts=(attempt("xai", "grok"),),
        traffic=(call("xai", "grok"),),
        **changes,
    )


def insert(store: UsageStore, *several: Rows) -> None:
    store.insert([one.request for one in several], [row for one in several for row in one.egress_rows])


@pytest.mark.parametrize(
    ("cost", "spent"),
    [
        (PAID, 0.03),
        (Cost(0.0, (), unknown=("xai: no price known",)), 0.5),
        (Cost(0.03, ("catalogue",), by_call={1: CallCost(Usage(100, 50, estimated=True), 0.03)}), 0.5),
    ],
    ids=["the bill", "not known", "broken off"],
)
def test_a_budget_is_charged_the_bill_or_all_that_was_reserved(store: UsageStore, cost: Cost, spent: float) -> None:
    calls = {"attempts": (attempt("xai", "grok"),), "traffic": (call("xai", "grok"),)}
    one = rows("s1", cost, client="vk-1", reserved_usd=0.5, **calls)
    other = rows("s2", PAID, client="vk-1", **calls)
    store.insert([one.request, other.request], [*one.egress_rows, *other.egress_rows])
    assert store.spent("vk-1", "2026-11-21", "2026-11-21") == pytest.approx(spent + 0.03)
    assert store.spent("vk-1", "2026-11-22", "2026-11-30") == 0.0


def test_the_tables_are_those_that_the_migrations_make(database: str) -> None:
    engine = open_database(database)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert ScriptDirectory(str(Path(database_module.__file__).parent / "migrations")).get_current_head() == REVISION


def test_a_new_database_has_its_tables_and_their_revision_without_alembic(database: str) -> None:
    code = f"""
import sys
from ai_router.storage.database import open_database
open_database({database!r}).dispose()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    engine = open_database(database)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert MigrationContext.configure(connection).get_current_revision() == REVISION
    engine.dispose()


def test_processes_that_start_together_bring_the_tables_up_to_date_once(database: str) -> None:
    problems: list[BaseException] = []

    def start() -> None:
        try:
            UsageStore(database).close()
        except StoreUnavailable as problem:
            problems.append(problem)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_sums_by_day_route_model_organization_and_key(store: UsageStore) -> None:
    insert(
        store,
        rows("a" * 8, client="key-1", organization="acme"),
        rows("b" * 8, client="key-1", day=20),
        cloud("c" * 8, client="key-2"),
    )
    by = ("day", "route", "model", "organization", "client")
    found = store.totals("2026-11-01", "2026-11-30", None, by)
    assert [tuple(row[name] for name in by) for row in found] == [
        ("2026-11-20", "primary", "m", "", "key-1"),
        ("2026-11-21", "primary", "m", "acme", "key-1"),
        ("2026-11-21", "xai", "grok", "", "key-2"),
    ]
    (total,) = store.totals("2026-11-01", "2026-11-30", None, ())
    assert (total["requests"], total["input_tokens"], total["output_tokens"]) == (3, 120, 90)
    assert (total["cached_tokens"], total["reasoning_tokens"], total["answered_locally"]) == (20, 10, 2)
    assert total["cost_usd"] == pytest.approx(0.03)


def test_days_outside_do_not_count_and_nothing_is_zero_and_not_nothing(store: UsageStore) -> None:
    insert(store, rows("a" * 8))
    (total,) = store.totals("2026-10-01", "2026-10-31", None, ())
    assert (total["requests"], total["input_tokens"], total["cost_usd"], total["saved_usd"]) == (0, 0, 0.0, 0.0)


def test_a_client_sees_its_own(store: UsageStore) -> None:
    insert(store, rows("a" * 8, client="key-1"), cloud("b" * 8, client="key-2"))
    assert store.totals(*TODAY[:2], "key-1", ())[0]["requests"] == 1
    assert store.egress_totals(*TODAY[:2], "key-1") == []
    assert len(store.egress_totals(*TODAY[:2], "key-2")) == 1


def test_what_was_saved_is_the_baseline_less_the_cost_of_local_answers(store: UsageStore) -> None:
    local = Cost(0.001, ("electricity",), usage=Usage(10, 20), gpu_s=0.5, baseline_usd=0.5)
    insert(store, rows("a" * 8, local), cloud("b" * 8))
    assert store.totals(*TODAY, ())[0]["saved_usd"] == pytest.approx(0.499)


@pytest.mark.parametrize(
    ("decided_by", "confidence", "doubted"),
    [
        ("fast", 0.9, 0),
        ("fast", None, 1),
        ("classifier", 0.8, 0),
        ("classifier", 0.79, 1),
        ("classifier", None, 1),
        ("default", None, 1),
    ],
)
def test_a_decision_is_in_doubt_if_it_was_not_sure_or_nobody_knows(
    store: UsageStore, decided_by: str, confidence: float | None, doubted: int
) -> None:
    one = rows("a" * 8)
    one.request.update(decided_by=decided_by, confidence=confidence)
    insert(store, one)
    (total,) = store.totals(*TODAY, ())
    assert (total["decided"], total["in_doubt"]) == (1, doubted)


def test_what_failed_was_not_answered_at_home(store: UsageStore) -> None:
    insert(store, rows("a" * 8), rows("b" * 8, status=Status.ERROR), rows("c" * 8, status=Status.CANCELLED))
    (total,) = store.totals(*TODAY, ())
    assert (total["requests"], total["answered"], total["answered_locally"]) == (3, 1, 1)


@pytest.mark.parametrize("decided_by", ["explicit", "meta", "conversation", ""])
def test_what_the_router_did_not_decide_is_never_in_doubt(store: UsageStore, decided_by: str) -> None:
    one = rows("a" * 8)
    one.request.update(decided_by=decided_by, confidence=None)
    insert(store, one)
    (total,) = store.totals(*TODAY, ())
    assert (total["decided"], total["in_doubt"]) == (0, 0)


def test_calls_that_left_are_listed_newest_first_each_with_its_session(store: UsageStore) -> None:
    insert(store, cloud("a" * 8, day=20), cloud("b" * 8), rows("c" * 8))
    first, second = store.egress_calls(None, 10, None)
    assert (first["session_id"], second["session_id"]) == ("b" * 8, "a" * 8)
    assert (first["route"], first["backend"], first["cost_usd"]) == ("xai", "xai", 0.03)
    assert [row["session_id"] for row in store.egress_calls(None, 10, first["id"])] == ["a" * 8]


def test_a_client_sees_its_own_calls_that_left(store: UsageStore) -> None:
    insert(store, cloud("a" * 8, client="key-1"), cloud("b" * 8, client="key-2"))
    assert [row["session_id"] for row in store.egress_calls("key-1", 10, None)] == ["a" * 8]


def test_errors_cancellations_and_unknown_costs_are_counted(store: UsageStore) -> None:
    unknown = Cost(0.0, (), unknown=("openrouter: no price known",))
    insert(
        store,
        rows("a" * 8, status=Status.ERROR, http_status=502),
        rows("b" * 8, status=Status.ERROR, http_status=400),
        rows("c" * 8, status=Status.CANCELLED, http_status=499),
        rows("d" * 8, unknown),
    )
    (total,) = store.totals(*TODAY, ())
    assert (total["errors"], total["failed"], total["cancelled"], total["cost_unknown"]) == (2, 1, 1, 1)


def test_the_ledger_of_what_left_the_house_has_no_local_calls(store: UsageStore) -> None:
    search = call("xai", "grok-4.3", call_number=1, purpose=Purpose.SEARCH, bytes_sent=70)
    enriched = rows("a" * 8, traffic=(search, call(call_number=2)))
    insert(store, enriched, cloud("b" * 8), cloud("c" * 8))
    answered, searched = store.egress_totals(*TODAY)
    assert (searched["purpose"], searched["calls"], searched["bytes_sent"]) == ("search", 1, 70)
    assert (answered["model"], answered["calls"], answered["bytes_sent"]) == ("grok", 2, 200)
    assert (answered["input_tokens"], answered["cost_usd"]) == (200, pytest.approx(0.06))


def test_a_row_that_comes_twice_counts_once(store: UsageStore) -> None:
    insert(store, cloud("a" * 8))
    insert(store, cloud("a" * 8), rows("b" * 8))
    assert store.totals(*TODAY, ())[0]["requests"] == 2
    assert store.egress_totals(*TODAY)[0]["calls"] == 1


def test_old_rows_are_forgotten(store: UsageStore) -> None:
    insert(store, cloud("a" * 8, day=1), rows("b" * 8))
    assert store.forget_before("2026-11-10") == 2
    assert store.totals("2026-01-01", "2026-12-31", None, ())[0]["requests"] == 1


def test_a_process_is_remembered_from_its_start_to_its_last_sign(store: UsageStore) -> None:
    store.record_run("one", 100.0, 100.0)
    store.record_run("one", 100.0, 130.0)
    store.record_run("two", 200.0, 230.0)
    assert store.runs_since(0.0) == [(100.0, 130.0), (200.0, 230.0)]
    assert store.runs_since(150.0) == [(200.0, 230.0)]


def test_the_newest_rows_come_first_and_not_more_than_wanted(store: UsageStore) -> None:
    insert(store, *(rows(f"{day:08x}", day=day) for day in (1, 2, 3)))
    days = [datetime.fromtimestamp(row["at"], UTC).day for row in store.since(0.0, 2)]
    assert days == [3, 2]


def test_sums_beyond_what_fits_into_four_bytes(store: UsageStore) -> None:
    insert(store, *(rows(f"{n:08x}", Cost(0.0, ("local",), usage=Usage(10**9, 10**12))) for n in range(5)))
    (total,) = store.totals(*TODAY, ())
    assert (total["input_tokens"], total["output_tokens"]) == (5 * 10**9, 5 * 10**12)


@pytest.mark.parametrize("change", [{"input_tokens": 10**30}, {"model": None}, {"route": None}, {"cost_usd": "much"}])
def test_a_row_that_cannot_be_is_refused_and_not_taken_for_a_database_that_fails(
    store: UsageStore, change: dict[str, Any]
) -> None:
    row = {**rows("a" * 8).request, **change}
    if change == {"cost_usd": "much"} and "sqlite" in str(store.engine.url):
        pytest.skip("SQLite takes a word for a number")
    with pytest.raises(RowRefused):
        store.insert([row], [])
    insert(store, rows("b" * 8))
    assert store.totals(*TODAY, ())[0]["requests"] == 1


def test_a_word_with_nul_in_it_is_stored_without(store: UsageStore) -> None:
    insert(store, rows("a" * 8, attempts=(attempt(model="a\x00b"),)))
    assert store.totals(*TODAY, ("model",))[0]["model"] == "a?b"


def test_tables_of_a_later_version_are_left_alone(database: str) -> None:
    UsageStore(database).close()
    engine = open_database(database)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StoreUnavailable) as caught:
        UsageStore(database)
    assert "9999" in caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:s3cr3t-word@127.0.0.1:1/nothing",
        "sqlite:////proc/no-such-folder/usage.db",
    ],
)
def test_a_database_that_cannot_be_had_is_told_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        UsageStore(url)
    assert "s3cr3t" not in caught.value.detail
    assert not any(word in str(caught.value) for word in ("127.0.0.1", "/proc"))


def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    UsageStore(f"sqlite:///{tmp_path / 'deep' / 'usage.db'}").close()
    assert (tmp_path / "deep" / "usage.db").stat().st_mode & 0o777 == 0o600
