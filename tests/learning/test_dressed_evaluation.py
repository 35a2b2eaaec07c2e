"""The head on dressed prompts: a row for each family, and the floors that the packaged head must keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_router.learning.dressed_evaluation import (
    UNDRESSED,
    FamilyReport,
    dressed_reports,
    dressed_table,
    mean_accuracy,
    right_where_sure,
    why_worse_dressed,
)
from ai_router.learning.dressing import Dressings, dressings_to_measure_with
from ai_router.learning.evaluation import Prediction, report
from ai_router.learning.examples import Example, read_examples
from ai_router.routing.head.store import packaged_head
from ai_router.types import Label

EVERYDAY = Path(__file__).parents[2] / "datasets" / "test" / "everyday.jsonl"
MEAN_FLOOR, WORST_FLOOR, SURE_FLOOR = 0.97, 0.90, 0.99
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
    right = right_where_sure(found)
    assert right is not None
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


def reports(*right: bool, sure: bool = True) -> dict[str, FamilyReport]:
    """One family in which the head is right, or wrong, about so many prompts."""
    said = [Prediction(Label.MODERATE, 0.9, {}, sure, 1.0) for _ in right]
    return {
        "thanks": FamilyReport(report([Label.MODERATE if is_right else Label.COMPLEX for is_right in right], said), "")
    }


def test_a_student_that_does_worse_on_dressed_prompts_is_not_installed() -> None:
    packaged = reports(*[True] * 100)
    assert why_worse_dressed(packaged, packaged) is None
    assert why_worse_dressed(reports(*[True] * 99, False), packaged) is None
    worse = why_worse_dressed(reports(*[True] * 95, *[False] * 5), packaged)
    assert worse == "of dressed prompts it has 95.0% right, the packaged head 100.0%"
    assert right_where_sure(reports(True, False, sure=False)) is None
    half_sure = {**reports(*[False] * 5, *[True] * 5), "mail": reports(*[True] * 190, sure=False)["thanks"]}
    better_but_sure_of_the_wrong = why_worse_dressed(
        half_sure, {**reports(*[True] * 9, False), "mail": packaged["thanks"]}
    )
    assert better_but_sure_of_the_wrong is not None
