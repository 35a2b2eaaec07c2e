"""What is promised, beside what is."""

from __future__ import annotations

import pytest

from ai_router.observability.targets import targets, uptime
from ai_router.observability.windows import Cell

DAY = 86_400.0


def statuses(day: Cell, up: float | None = 1.0) -> dict[str, str]:
    return {target.name: target.judged(day)["status"] for target in targets(up)}


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
    told = {target.name: target.judged(Cell())["target"] for target in targets(None)}
    assert told == {
        "ttft_p95": "<= 1500 ms",
        "latency_p50": "<= 3500 ms",
        "latency_p95": "<= 6000 ms",
        "error_rate": "<= 0.01",
        "cancel_p99": "<= 300 ms",
        "uptime": ">= 0.995",
    }


@pytest.mark.parametrize(
    ("lives", "share"),
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
def test_uptime_is_the_time_in_which_a_process_lived(lives: list[tuple[float, float]], share: float | None) -> None:
    assert uptime(lives, 0.0, DAY) == share
