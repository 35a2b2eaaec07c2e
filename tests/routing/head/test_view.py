"""What the head reads of a conversation."""

from __future__ import annotations

from ai_router.routing.head.view import ANSWER_CHARS, TURN_CHARS, view_of


def test_the_last_two_user_turns_newest_first_and_the_answer_between() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "third"},
    ]
    view = view_of(messages)
    assert (view.turns, view.answer, view.length) == (("third", "second"), "two", 5)


def test_of_a_long_turn_both_ends_are_read_and_its_length_is_known() -> None:
    view = view_of([{"role": "user", "content": "begin " + "x" * 100_000 + " end"}])
    assert view.last.startswith("begin")
    assert view.last.endswith("end")
    assert len(view.last) == TURN_CHARS + 1
    assert view.length == 100_010


def test_parts_and_images_are_text_and_placeholders() -> None:
    content = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert view_of([{"role": "user", "content": content}]).last == "what is this?\n[image]"


def test_a_tool_s_result_after_the_question_does_not_hide_it() -> None:
    messages = [{"role": "user", "content": "weather?"}, {"role": "assistant", "content": None}, {"role": "tool"}]
    assert view_of(messages).last == "weather?"


def test_an_answer_is_read_from_its_beginning() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "y" * 900}]
    assert len(view_of([*messages, {"role": "user", "content": "b"}]).answer) == ANSWER_CHARS


def test_nothing_said_is_an_empty_view() -> None:
    assert view_of([{"role": "system", "content": "Be brief."}]).turns == ("",)


def test_what_cannot_be_read_is_told() -> None:
    image = [{"type": "text", "text": "prove this"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert view_of([{"role": "user", "content": image}]).partial
    assert view_of([{"role": "user", "content": "hi"}, {"role": "tool", "content": "a long result"}]).partial
    assert not view_of([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]).partial
    assert not view_of([{"role": "user", "content": "hi"}]).partial
