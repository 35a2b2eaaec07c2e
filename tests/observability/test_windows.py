"""The last five minutes, hour and day; the targets beside them; the start of the process to its first answer."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time

import pytest

from ai_router.observability.windows import (
    Cell,
    ColdStart,
    Durations,
    Windows,
    by_model,
    by_route,
    cell_json,
    merge_cells,
    preload,
    process_started,
    targets,
    uptime,
)
from ai_router.storage.usage_rows import rows_of
from ai_router.types import Cost, Status
from tests.outcomes import FREE, attempt, outcome

DAY = 86_400.0


class Now:
    """A clock that is set; not at a slot's edge."""

    def __init__(self) -> None:
        self.at = 1_795_326_125.0

    def __call__(self) -> float:
        return self.at


def row(cost: Cost = FREE, **changes: object) -> dict[str, object]:
    if "model" in changes:
        changes["attempts"] = (attempt(model=str(changes["model"])),)
    return rows_of(outcome(**changes), cost, lambda backend: backend == "primary").request


def count(windows: Windows, seconds: float) -> float:
    return merge_cells(windows.within(seconds).values()).counts["requests"]


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_a_percentile_is_right_within_two_percent(spread: float) -> None:
    rng = random.Random(spread)
    values = sorted(rng.lognormvariate(6, spread) for _ in range(5_000))
    durations = Durations()
    for value in values:
        durations.add(value)
    for share in (0.5, 0.95, 0.99):
        assert durations.percentile(share) == pytest.approx(values[int(share * 5_000) - 1], rel=0.021)


def test_nothing_has_no_percentile() -> None:
    assert Durations().percentile(0.5) is None


def test_what_is_over_leaves_the_windows_one_after_the_other() -> None:
    now = Now()
    windows = Windows(now)
    windows.add(row())
    assert [count(windows, seconds) for seconds in (300, 3600, DAY)] == [1, 1, 1]
    now.at += 400
    windows.add(row())
    assert [count(windows, seconds) for seconds in (300, 3600, DAY)] == [1, 2, 2]
    now.at += 4000
    windows.add(row())
    assert [count(windows, seconds) for seconds in (300, 3600, DAY)] == [1, 1, 3]
    now.at += DAY + 600
    windows.add(row())
    assert [count(windows, seconds) for seconds in (300, 3600, DAY)] == [1, 1, 1]


def test_a_day_of_traffic_is_kept_in_a_bounded_number_of_slots() -> None:
    now = Now()
    windows = Windows(now)
    for _ in range(3 * 24 * 60):
        now.at += 60
        windows.add(row())
    assert len(windows._fine) <= 62
    assert len(windows._coarse) <= 146
    assert count(windows, DAY) == pytest.approx(24 * 60, abs=11)


def test_what_an_earlier_process_saw_counts() -> None:
    now = Now()
    windows = Windows(now)
    rows = [{**row(), "at": now.at - age} for age in (10.0, 1_000.0, 50_000.0)]
    preload(windows, rows)
    assert [count(windows, seconds) for seconds in (300, 3600, DAY)] == [1, 2, 3]


def test_routes_and_models_are_told_apart() -> None:
    windows = Windows(Now())
    windows.add(row(route="primary", model="a"))
    windows.add(row(route="xai", model="b"))
    windows.add(row(route="xai", model="a"))
    cells = windows.within(300)
    assert {name: cell.counts["requests"] for name, cell in by_route(cells).items()} == {"primary": 1, "xai": 2}
    assert {name: cell.counts["requests"] for name, cell in by_model(cells).items()} == {"a": 2, "b": 1}


def test_only_what_is_not_the_client_s_own_fault_counts_as_an_error() -> None:
    windows = Windows(Now())
    windows.add(row())
    windows.add(row(status=Status.ERROR, http_status=502, error="x"))
    windows.add(row(status=Status.ERROR, http_status=404, error="x"))
    windows.add(row(status=Status.CANCELLED, http_status=499, error="x", timings={"total_ms": 9.0, "cancel_ms": 4.0}))
    shown = cell_json(merge_cells(windows.within(300).values()))
    assert (shown["requests"], shown["errors"], shown["failed"], shown["cancelled"]) == (4, 2, 1, 1)
    assert shown["error_rate"] == 0.5
    assert shown["cancel_ms"]["p99"] == pytest.approx(4.0, rel=0.02)
    assert shown["latency_ms"]["p50"] == pytest.approx(100.0, rel=0.02)


def statuses(day: Cell, up: float | None = 1.0) -> dict[str, str]:
    return {target.name: target.report(day)["status"] for target in targets(up)}


def day(ttft: float, latency: float, cancel: float, failed: int) -> Cell:
    cell = Cell()
    for _ in range(100):
        cell.ttft.add(ttft)
        cell.total.add(latency)
        cell.cancel.add(cancel)
    cell.counts["requests"], cell.counts["errors"], cell.counts["failed"] = 100, failed, failed
    return cell


def test_a_good_day_meets_every_target() -> None:
    assert set(statuses(day(400, 2_000, 10, 0)).values()) == {"ok"}


def test_a_bad_day_misses_every_target() -> None:
    assert set(statuses(day(1_600, 7_000, 400, 5), 0.9).values()) == {"missed"}


def test_a_day_without_requests_says_so() -> None:
    assert set(statuses(Cell(), None).values()) == {"no data"}


def test_the_targets_are_those_that_were_set() -> None:
    limits = {target.name: target.report(Cell())["target"] for target in targets(None)}
    assert limits == {
        "ttft_p95": "<= 1500 ms",
        "latency_p50": "<= 3500 ms",
        "latency_p95": "<= 6000 ms",
        "error_rate": "<= 0.01",
        "cancel_p99": "<= 300 ms",
        "uptime": ">= 0.995",
    }


@pytest.mark.parametrize(
    ("runs", "share"),
    [
        ([], None),
        ([(0.0, DAY)], 1.0),
        ([(-DAY, DAY / 2)], 0.5),
        ([(0.0, DAY / 4), (DAY / 2, DAY)], 0.75),
        ([(0.0, DAY / 2), (DAY / 4, DAY)], 1.0),
        # The time before the first start is nobody's fault.
        ([(DAY / 2, DAY)], 1.0),
        ([(DAY / 2, 3 * DAY / 4)], 0.5),
    ],
)
def test_uptime_is_the_time_in_which_a_process_lived(runs: list[tuple[float, float]], share: float | None) -> None:
    assert uptime(runs, 0.0, DAY) == share


def test_the_first_answer_counts_and_no_later_one() -> None:
    cold = ColdStart(process_start=100.0, now=lambda: 102.0)
    assert math.isnan(cold.seconds())
    cold.finished(outcome(status=Status.ERROR), FREE)
    cold.finished(outcome(timings={"total_ms": 500.0}), FREE)
    cold.finished(outcome(timings={"total_ms": 9.0}), FREE)
    assert cold.seconds() == 2.5
    assert cold.as_json() == {"ready_ms": 2000.0, "first_answer_ms": 500.0, "start_to_first_answer_ms": 2500.0}


def test_a_process_knows_when_it_began() -> None:
    before = time.time()
    code = "from ai_router.observability.windows import process_started; print(process_started())"
    started = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    # The kernel counts in hundredths.
    assert before - 0.05 <= started <= time.time()
    assert process_started() < before, os.getpid()
