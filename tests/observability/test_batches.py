"""Items handed to a background thread."""

from __future__ import annotations

import threading

from ai_router.observability.recorder import Batches


def test_all_pieces_are_handled_in_their_order() -> None:
    seen: list[int] = []
    batches = Batches(seen.extend, name="test")
    batches.start()
    for item in range(100):
        batches.put(item)
    assert batches.close() == []
    assert seen == list(range(100))


def test_settling_has_what_waits_handled_at_once() -> None:
    seen: list[int] = []
    batches = Batches(seen.extend, name="test", gather_s=3600)
    batches.start()
    batches.put(1)
    batches.flush(30)
    assert seen == [1]
    batches.put(2)
    batches.flush(30)
    batches.close()
    assert seen == [1, 2]


def test_nobody_who_settles_works_on_pieces_himself() -> None:
    workers: list[str] = []
    batches: Batches[int] = Batches(lambda _: workers.append(threading.current_thread().name), name="the-thread")
    batches.start()
    batches.put(1)
    batches.flush()
    batches.close()
    assert set(workers) == {"the-thread"}


def test_settling_does_not_wait_for_a_handler_that_hangs_and_closing_gives_back_what_is_left() -> None:
    begun, hanging = threading.Event(), threading.Event()

    def handle(_: list[int]) -> None:
        begun.set()
        hanging.wait(30)

    batches = Batches(handle, name="test", gather_s=0.0)
    batches.start()
    batches.put(1)
    assert begun.wait(10)
    batches.put(2)
    batches.flush(timeout_s=0.01)
    assert batches.waiting == 1
    assert batches.close(timeout_s=0.01) == [2]
    assert batches.stuck
    hanging.set()


def test_beyond_the_limit_nothing_is_taken() -> None:
    batches = Batches(lambda _: None, name="test", limit=2)
    assert [batches.put(item) for item in range(3)] == [True, True, False]
