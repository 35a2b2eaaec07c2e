"""Staying with a conversation's route, and finding the turn before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.conversations import (
    STAY_BELOW,
    Conversations,
    goes_in_circles,
    goes_on,
    is_continuation,
    stay,
    turn_keys,
)
from ai_router.types import DecidedBy, Decision, Label, Message, route_of


def talk(*turns: str) -> list[Message]:
    """User and assistant in turn, ending with the user."""
    return [{"role": "user" if index % 2 == 0 else "assistant", "content": turn} for index, turn in enumerate(turns)]


def decided(label: Label, confidence: float | None) -> Decision:
    return Decision(label, route_of(label), DecidedBy.CLASSIFIER, f"classifier: {label}", confidence)


def test_a_first_turn_has_none_before_it() -> None:
    assert turn_keys(talk("hi"))[0] is None


def test_a_turn_knows_the_place_of_the_one_before() -> None:
    assert turn_keys(talk("prove it", "Done.", "and now?"))[0] == turn_keys(talk("prove it"))[1]


def test_what_the_assistant_said_does_not_move_the_place() -> None:
    assert turn_keys(talk("a", "one", "b"))[1] == turn_keys(talk("a", "two", "b"))[1]


def test_a_tool_s_result_continues_the_turn() -> None:
    turn = talk("a", "one", "b")
    here = turn_keys(turn)[1]
    assert turn_keys([*turn, {"role": "assistant", "content": None}, {"role": "tool", "content": "x"}]) == (here, here)


def test_another_system_message_or_another_picture_is_another_conversation() -> None:
    def with_picture(url: str) -> list[Message]:
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    assert turn_keys([{"role": "system", "content": "Be brief."}, *talk("a")])[1] != turn_keys(talk("a"))[1]
    assert turn_keys(talk("a"), "key-1")[1] != turn_keys(talk("a"), "key-2")[1]
    assert turn_keys(with_picture("data:,AAAA"))[1] != turn_keys(with_picture("data:,BBBB"))[1]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_other_turns_are_another_place(some: list[str], others: list[str]) -> None:
    def of(turns: list[str]) -> bytes:
        return turn_keys([{"role": "user", "content": turn} for turn in turns])[1]

    assert (of(some) == of(others)) == (some == others)


@pytest.mark.parametrize(
    ("before", "new", "confidence", "label"),
    [
        (Label.COMPLEX, Label.MODERATE, STAY_BELOW - 0.01, Label.COMPLEX),
        (Label.COMPLEX, Label.MODERATE, STAY_BELOW, Label.MODERATE),
        (Label.MODERATE, Label.COMPLEX, 0.6, Label.MODERATE),
        (Label.MODERATE, Label.COMPLEX, None, Label.COMPLEX),
        (Label.MODERATE, Label.ENRICH, 0.4, Label.ENRICH),
        (None, Label.COMPLEX, 0.4, Label.COMPLEX),
        (Label.COMPLEX, Label.COMPLEX, 0.4, Label.COMPLEX),
    ],
)
def test_an_unsure_decision_stays_where_the_conversation_is(
    before: Label | None, new: Label, confidence: float | None, label: Label
) -> None:
    staying = stay(decided(new, confidence), before)
    assert (staying.label, staying.route) == (label, route_of(label))


def test_staying_says_so() -> None:
    reason = stay(decided(Label.MODERATE, 0.5), Label.COMPLEX).reason
    assert reason == "stays COMPLEX like the turn before, since this is unsure (classifier: MODERATE)"


def test_an_enrich_turn_passes_on_what_was_before_it() -> None:
    kept = Conversations(10)
    kept.remember(None, b"1", Label.COMPLEX)
    kept.remember(b"1", b"2", Label.ENRICH)
    assert kept.label_at(b"2") is Label.COMPLEX


def test_after_a_first_enrich_there_is_nothing_to_stay_with() -> None:
    kept = Conversations(10)
    kept.remember(None, b"1", Label.ENRICH)
    assert kept.label_at(b"1") is None


def test_the_oldest_turns_are_forgotten() -> None:
    kept = Conversations(2)
    for key in (b"1", b"2", b"3"):
        kept.remember(None, key, Label.MODERATE)
    assert [kept.label_at(key) for key in (b"1", b"2", b"3")] == [None, Label.MODERATE, Label.MODERATE]


def test_a_turn_that_was_looked_up_is_kept_longer_than_one_that_was_not() -> None:
    kept = Conversations(2)
    for key in (b"1", b"2"):
        kept.remember(None, key, Label.MODERATE)
    kept.label_at(b"1")
    kept.remember(None, b"3", Label.MODERATE)
    assert [kept.label_at(key) for key in (b"1", b"2", b"3")] == [Label.MODERATE, None, Label.MODERATE]


def test_a_turn_s_own_label_is_known_for_the_rest_of_it() -> None:
    kept = Conversations(10)
    kept.remember(b"1", b"2", Label.ENRICH)
    kept.remember_own(b"3", Label.COMPLEX)
    assert [kept.own_label(key) for key in (b"1", b"2", b"3")] == [None, Label.ENRICH, Label.COMPLEX]
    assert kept.label_at(b"3") is None


@pytest.mark.parametrize(
    ("role", "expected"), [("tool", True), ("function", True), ("user", False), ("assistant", False)]
)
def test_only_a_tool_s_result_goes_on_with_a_turn(role: str, expected: bool) -> None:
    assert goes_on([*talk("a"), {"role": role, "content": "x"}]) is expected
    assert not goes_on([])


def called(arguments: str, result: str, name: str = "read") -> list[Message]:
    """A round of a tool loop: a call and its result."""
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]


SAME = called('{"path": "a.py"}', "no such file")


@pytest.mark.parametrize(
    ("rounds", "circles"),
    [
        (SAME * 3, True),
        (SAME * 2, False),
        ([*called('{"path": "b.py"}', "x"), *SAME * 3], True),
        ([*SAME * 3, *called('{"path": "b.py"}', "x")], False),
        ([*SAME * 2, *called('{"path":"a.py"}', "no such file")], True),
        ([*SAME * 2, *called('{"path": "a.py"}', "import os")], False),
        ([*SAME * 2, *called('{"path": "a.py"}', "no such file", name="write")], False),
        ([message for n in range(3) for message in called("{}", f"Error: timed out after {n} s")], True),
        ([message for n in range(3) for message in called("{}", f"<tool_use_error>line {n}</tool_use_error>")], True),
        ([message for n in range(3) for message in called("{}", f"{n} errors found")], False),
        ([*SAME * 2, {"role": "user", "content": "try again"}, *SAME], False),
        ([{"role": "tool", "content": "x"}] * 3, False),
        ([], False),
    ],
    ids=[
        "three the same",
        "two only",
        "another one before",
        "another one after",
        "other blanks in the arguments",
        "a new result",
        "another tool",
        "three errors",
        "three errors in tags",
        "results that speak of errors",
        "the user spoke in between",
        "results without calls",
        "nothing",
    ],
)
def test_a_loop_goes_in_circles_where_three_equal_calls_brought_nothing_new(
    rounds: list[Message], circles: bool
) -> None:
    assert goes_in_circles([*talk("fix it"), *rounds]) is circles


def test_functions_of_the_old_kind_count_too() -> None:
    old = [
        {"role": "assistant", "content": None, "function_call": {"name": "read", "arguments": "not JSON"}},
        {"role": "function", "name": "read", "content": "nothing"},
    ]
    assert goes_in_circles([*talk("fix it"), *old * 3])


@pytest.mark.parametrize(
    "text", ["yes", "Yes, do it!", "continue", "  Continue.\n", "weiter", "sí, hazlo", "继续", "はい。"]
)
def test_who_says_no_more_than_go_on_goes_on(text: str) -> None:
    assert is_continuation(talk("prove it", "Part one.", text))


@pytest.mark.parametrize(
    "text", ["yes, but in Spanish", "continue " * 20, "", "no", "and in Spanish?", "do it in Rust"]
)
def test_who_says_more_does_not(text: str) -> None:
    assert not is_continuation(talk("prove it", "Part one.", text))
