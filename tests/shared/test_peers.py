"""Asking and telling the other processes."""

from __future__ import annotations

import threading

import pytest

from ai_router.shared.client import SharedUnavailable
from ai_router.shared.start import ALONE
from tests.fakes.router import eventually
from tests.fakes.valkey import RunningValkey
from tests.shared.conftest import Join


def test_all_others_answer_a_question(join: Join) -> None:
    asker, one, other = join(), join(), join()
    for number, shared in enumerate((asker, one, other)):
        shared.peers.on("number", lambda factor, number=number: number * factor)
    assert sorted(asker.peers.ask("number", 10, 5)) == [10, 20]


def test_who_has_nothing_to_say_is_not_waited_for(join: Join) -> None:
    asker, one, _other = join(), join(), join()
    one.peers.on("known", lambda _: True)
    _other.peers.on("known", lambda _: None)
    assert asker.peers.ask("known", None, 60) == [True]


def test_a_topic_that_a_process_of_another_version_does_not_know_is_answered_with_nothing(join: Join) -> None:
    asker, _other = join(), join()
    assert asker.peers.ask("unheard of", None, 60) == []


def test_a_handler_that_fails_costs_no_other_its_answer(join: Join) -> None:
    asker, broken, well = join(), join(), join()
    broken.peers.on("ask", lambda payload: payload["missing"])
    well.peers.on("ask", lambda _: "well")
    assert asker.peers.ask("ask", {}, 60) == ["well"]


def test_one_that_does_not_answer_in_time_is_left_out(join: Join) -> None:
    asker, slow, quick = join(), join(), join()
    may_go_on = threading.Event()
    slow.peers.on("ask", lambda _: may_go_on.wait(60))
    quick.peers.on("ask", lambda _: "quick")
    assert asker.peers.ask("ask", None, 0.5) == ["quick"]
    may_go_on.set()


def test_what_is_told_is_heard_in_its_order_by_all_others(join: Join) -> None:
    teller, *others = join(), join(), join()
    heard: list[list[int]] = [[], []]
    for number, other in enumerate(others):
        other.peers.on("count", heard[number].append)
    for number in range(200):
        teller.peers.tell("count", number)
    assert eventually(lambda: all(len(numbers) == 200 for numbers in heard))
    assert heard == [list(range(200))] * 2


def test_one_alone_can_be_told(join: Join) -> None:
    teller, one, other = join(), join(), join()
    heard: list[str] = []
    one.peers.on("word", lambda word: heard.append(f"one: {word}"))
    other.peers.on("word", lambda word: heard.append(f"other: {word}"))
    teller.peers.tell("word", "first", to=other.peers.name)
    teller.peers.tell("word", "last")
    assert eventually(lambda: len(heard) == 3)
    assert sorted(heard) == ["one: last", "other: first", "other: last"]


def test_processes_are_counted(join: Join) -> None:
    before = eventually(lambda: join().peers.count)
    one = join()
    assert eventually(lambda: one.peers.count >= before + 1)


def test_without_the_server_a_question_fails_at_once_and_later_works_again(join: Join, valkey: RunningValkey) -> None:
    asker, other = join(), join()
    other.peers.on("ask", lambda _: "here")
    valkey.stop()
    assert eventually(lambda: not asker.client.works)
    with pytest.raises(SharedUnavailable):
        asker.peers.ask("ask", None, 60)
    valkey.start()

    def asked_again() -> object:
        try:
            return asker.peers.ask("ask", None, 1)
        except SharedUnavailable:
            return None

    assert eventually(lambda: asked_again() == ["here"])


def test_alone_there_is_nobody_to_ask() -> None:
    assert ALONE.peers.ask("anything", None, 60) == ()
    assert ALONE.peers.count == 1
