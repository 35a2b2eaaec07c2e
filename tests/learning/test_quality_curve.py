"""What each quality costs and brings."""

from __future__ import annotations

import pytest

from ai_router.learning.quality_curve import plain_curve, quality_curve, quality_table
from ai_router.types import DecidedBy, Decision, Label, route_of
from tests.routing.test_dial import DIAL

TRUTHS = [Label.MODERATE, Label.MODERATE, Label.COMPLEX, Label.COMPLEX, Label.ENRICH]
SHARES = [0.05, 0.35, 0.45, 0.95, 0.5]
SAID = [Label.MODERATE, Label.MODERATE, Label.MODERATE, Label.COMPLEX, Label.ENRICH]
DECISIONS = [
    Decision(label, route_of(label), DecidedBy.FAST, "why", complex_share=share)
    for label, share in zip(SAID, SHARES, strict=True)
]


def test_each_quality_trades_money_for_what_the_cloud_does_better() -> None:
    curve = quality_curve(TRUTHS, DECISIONS, DIAL, [0.01] * 5)
    assert [point.quality for point in curve] == list(range(11))
    assert [point.kept_home for point in curve] == [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert [point.needless for point in curve] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0]
    assert [round(point.usd or 0, 6) for point in curve] == [0, 2, 2, 2, 2, 2, 4, 6, 6, 6, 8]
    assert curve[6].accuracy == 1.0
    assert curve[5].accuracy == pytest.approx(0.8)


def test_a_price_that_is_not_known_makes_the_cost_unknown_and_not_zero() -> None:
    curve = quality_curve(TRUTHS, DECISIONS, DIAL, [0.01, None, 0.01, 0.01, 0.01])
    assert curve[6].usd == pytest.approx(4)
    assert curve[7].usd is None, "the prompt without a price goes to the cloud"
    assert quality_table(curve, "xai/m").splitlines()[2 + 7].endswith(" -")


def test_the_table_has_a_line_for_each_quality() -> None:
    curve = quality_curve(TRUTHS, DECISIONS, DIAL, [0.01] * 5)
    first, head, *lines = quality_table(curve, "xai/grok").splitlines()
    assert first.endswith("the cloud is xai/grok:")
    assert len(lines) == 11
    assert {len(line) for line in (head, *lines)} == {len(head)}
    assert lines[0].split()[:2] == ["0", "never"]
    assert plain_curve(curve)[6]["kept_home"] == 0.0


def test_without_complex_prompts_nothing_is_said_of_them() -> None:
    curve = quality_curve([Label.MODERATE], DECISIONS[:1], DIAL, [0.01])
    assert curve[0].kept_home is None
