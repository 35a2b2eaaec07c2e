"""An answer's events, and readers who come and go."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from ai_router.errors import RouterError
from ai_router.http.calls import CancelScope
from ai_router.http.timers import TimerThread
from ai_router.threads import answer as answer_module
from ai_router.threads.answer import NobodyReads, ThreadAnswer
from tests.fakes.router import eventually


class FakeReader:
    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.ended = False

    def send(self, event: bytes) -> None:
        self.events.append(event)

    def end(self) -> None:
        self.ended = True

    @property
    def numbers(self) -> list[int]:
        return [int(event.split(b"\n")[0].removeprefix(b"id: ")) for event in self.events]


@pytest.fixture
def timers() -> Iterator[TimerThread]:
    timers = TimerThread()
    yield timers
    timers.close()


@pytest.fixture
def scope() -> CancelScope:
    return CancelScope()


@pytest.fixture
def answer(timers: TimerThread, scope: CancelScope) -> ThreadAnswer:
    return ThreadAnswer("thread", "message", scope, timers, 0.01)


def test_events_are_numbered_and_reach_all_readers(answer: ThreadAnswer) -> None:
    first, second = FakeReader(), FakeReader()
    answer.join(first)
    answer.publish("message", {"message_id": "m"})
    answer.join(second)
    answer.publish("delta", {"content": "a"})
    assert first.events == second.events
    assert first.events[0] == b'id: 1\nevent: message\ndata: {"message_id":"m"}\n\n'


def test_a_reader_that_comes_back_gets_what_it_has_missed(answer: ThreadAnswer) -> None:
    answer.join(FakeReader())
    for text in "abc":
        answer.publish("delta", {"content": text})
    back = FakeReader()
    answer.join(back, after=1)
    answer.publish("delta", {"content": "d"})
    assert back.numbers == [2, 3, 4]


def test_what_is_no_longer_kept_is_told_as_a_snapshot(answer: ThreadAnswer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_module, "MAX_KEPT_BYTES", 200)
    answer.join(FakeReader())
    for number in range(20):
        answer.publish("delta", {"content": f"{number} ", "reasoning": "r"})
    late = FakeReader()
    answer.join(late, after=3)
    answer.publish("delta", {"content": "end"})
    assert late.numbers == [20, 21]
    snapshot = orjson.loads(late.events[0].split(b"data: ")[1])
    assert snapshot["content"] == "".join(f"{number} " for number in range(20))
    assert snapshot["reasoning"] == "r" * 20


def test_without_a_reader_it_is_cut_after_a_while(answer: ThreadAnswer, scope: CancelScope) -> None:
    leave = answer.join(FakeReader())
    assert scope.reason is None
    leave()
    leave()
    assert eventually(lambda: isinstance(scope.reason, NobodyReads))


def test_with_one_that_comes_back_in_time_it_goes_on(timers: TimerThread, scope: CancelScope) -> None:
    answer = ThreadAnswer("thread", "message", scope, timers, 3600.0)
    answer.join(FakeReader())()
    waiting = answer._abandoned
    answer.join(FakeReader())
    assert waiting is not None
    assert waiting.cancelled


def test_one_of_two_readers_may_leave(answer: ThreadAnswer) -> None:
    answer.join(FakeReader())
    answer.join(FakeReader())()
    assert answer._abandoned is None


def test_its_end_reaches_all_readers_and_those_who_come_later(answer: ThreadAnswer, scope: CancelScope) -> None:
    reader = FakeReader()
    leave = answer.join(reader)
    answer.publish("done", {})
    answer.end()
    late = FakeReader()
    answer.join(late)
    leave()
    assert (reader.ended, late.ended, late.numbers, answer.finished.is_set()) == (True, True, [1], True)
    assert answer._abandoned is None
    assert scope.reason is None


def test_a_cancel_aborts_its_calls(answer: ThreadAnswer, scope: CancelScope) -> None:
    answer.cancel(RouterError("stop"))
    assert str(scope.reason) == "stop"
