"""The date sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ai_router.routing.date_context import date_context

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_it_names_day_date_and_hour() -> None:
    assert date_context(NOON) == "Current date: Saturday, 21 November 2026 (weekend), between 12:00 and 12:59 UTC."


def test_it_keeps_its_bytes_for_an_hour() -> None:
    assert date_context(NOON) == date_context(NOON + timedelta(minutes=59, seconds=59))
    assert date_context(NOON) != date_context(NOON + timedelta(hours=1))
