"""Work for background threads: in order, in small portions, and at once for whoever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ai_router.observability import recorder
from ai_router.observability.recorder import Batches


@contextmanager
def running(handle: Any, **options: Any) -> Iterator[Batches[int]]:
    batches: Batches[int] = Batches(handle, name="a test's", **options)
    batches.start()
    try:
        yield batches
    finally:
        batches.close()


def test_items_are_handled_in_their_order_in_portions() -> None:
    portions: list[list[int]] = []
    with running(portions.append, portion=3, gather_s=60) as batches:
        for number in range(10):
            assert batches.put(number)
        batches.flush()
    assert [number for portion in portions for number in portion] == list(range(10))
    assert max(map(len, portions)) == 3


def test_without_a_size_all_that_wait_are_one_portion() -> None:
    portions: list[list[int]] = []
    with running(portions.append, gather_s=60) as batches:
        for number in range(10):
            batches.put(number)
        batches.flush()
    assert portions == [list(range(10))]


def test_who_waits_for_it_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_PAUSE_S", 60.0)
    first, handled = threading.Event(), 0

    def handle(portion: list[int]) -> None:
        nonlocal handled
        handled += len(portion)
        first.set()

    with running(handle, portion=1, gather_s=0.01) as batches:
        for number in range(100):
            batches.put(number)
        assert first.wait(10)
        batches.flush(timeout_s=10)
        assert handled == 100


def test_pauses_are_no_longer_than_the_next_items_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_PAUSE_S", 60.0)
    all_handled, handled = threading.Event(), 0

    def handle(portion: list[int]) -> None:
        nonlocal handled
        handled += len(portion)
        if handled == 1000:
            all_handled.set()

    with running(handle, portion=1, gather_s=0.05) as batches:
        for number in range(1000):
            batches.put(number)
        assert all_handled.wait(30)


def test_a_portion_that_fails_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    handled: list[int] = []

    def handle(portion: list[int]) -> None:
        if 4 in portion:
            raise ValueError("no fours")
        handled.extend(portion)

    with running(handle, portion=2, gather_s=60) as batches:
        for number in range(8):
            batches.put(number)
        batches.flush()
    assert handled == [0, 1, 2, 3, 6, 7]
    assert "a batch could not be handled" in caplog.text
