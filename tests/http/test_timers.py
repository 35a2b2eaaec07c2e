"""Timers fire in order, once, or not at all."""

from __future__ import annotations

import queue
import threading
import time

from ai_router.http.timers import TimerThread


def test_timers_fire_in_the_order_of_their_times_not_of_their_making(timers: TimerThread) -> None:
    fired: queue.Queue[str] = queue.Queue()
    timers.after(0.10, lambda: fired.put("late"))
    timers.after(0.02, lambda: fired.put("early"))
    assert [fired.get(timeout=5), fired.get(timeout=5)] == ["early", "late"]


def test_a_cancelled_timer_does_not_fire(timers: TimerThread) -> None:
    fired: queue.Queue[str] = queue.Queue()
    timers.after(0.01, lambda: fired.put("cancelled")).cancel()
    timers.after(0.05, lambda: fired.put("kept"))
    assert fired.get(timeout=5) == "kept"
    assert fired.empty()


def test_a_callback_that_fails_does_not_end_the_others(timers: TimerThread) -> None:
    fired = threading.Event()

    def fail() -> None:
        raise RuntimeError("on purpose")

    timers.after(0.0, fail)
    timers.after(0.02, fired.set)
    assert fired.wait(5)


def test_cancelled_timers_do_not_pile_up(timers: TimerThread) -> None:
    for _ in range(10_000):
        timers.after(3600, lambda: None).cancel()
    assert len(timers._heap) < 2_000


def test_timers_that_are_set_and_cancelled_again_do_not_wake_the_thread_each_time(timers: TimerThread) -> None:
    waits, wait = [0], timers._changed.wait

    def counted(seconds: float | None = None) -> bool:
        waits[0] += 1
        return wait(seconds)

    timers._changed.wait = counted  # type: ignore[method-assign]
    for _ in range(50):
        timers.after(10.0, lambda: None).cancel()
        time.sleep(0.002)  # in which it would wait again, had it been woken
    assert waits[0] <= 5
    rang = threading.Event()
    timers.after(0.01, rang.set)
    assert rang.wait(5), "one that is earlier does"
