"""The head on dressed prompts: a row for each family, and the floors that the packaged head must keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_router.learning.dressed_evaluation import UNDRESSED, dressed_reports, dressed_table, mean_accuracy
from ai_router.learning.dressing import Dressings, dressings_to_measure_with
from ai_router.learning.examples import Example, read_examples
from ai_router.routing.head.store import packaged_head

EVERYDAY = Path(__file__).parents[2] / "datasets" / "test" / "everyday.jsonl"
MEAN_FLOOR, WORST_FLOOR, SURE_FLOOR = 0.92, 0.70, 0.985
"""What the head of 2026-11-28 keeps with something to spare; docs/benchmarks.md has its figures and the targets."""
EVERY = 6
"""All 360 prompts in 40 families take two minutes."""


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return read_examples([EVERYDAY])[::EVERY]


def test_the_packaged_head_keeps_its_floors_however_a_prompt_is_dressed(examples: list[Example]) -> None:
    found = dressed_reports(packaged_head(), examples, dressings_to_measure_with(), 2026)
    table = dressed_table(found)
    assert mean_accuracy(found) >= MEAN_FLOOR, table
    assert min(report.report.accuracy for report in found.values()) >= WORST_FLOOR, table
    sure = [report.report for report in found.values() if report.report.accuracy_sure is not None]
    right = sum(of.accuracy_sure * of.coverage for of in sure) / sum(of.coverage for of in sure)
    assert right >= SURE_FLOOR, table


def test_the_table_has_a_line_for_each_family_the_worst_first(examples: list[Example]) -> None:
    dressings = dressings_to_measure_with()
    some = Dressings(
        families={name: dressings.families[name] for name in ("upper_case", "thanks")}, fillers=dressings.fillers
    )
    found = dressed_reports(packaged_head(), examples[:20], some, 2026)
    assert set(found) == {UNDRESSED, "upper_case", "thanks"}
    accuracies = [report.report.accuracy for report in found.values()]
    assert accuracies == sorted(accuracies)
    lines = dressed_table(found).splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("mean accuracy of the 2 families: ")
