"""Whether a user is not content with the answer before."""

from __future__ import annotations

import pytest

from ai_router.routing.complaints import complaint
from ai_router.types import Message

WRONG, AGAIN = "the user says that it was wrong", "the user asks the same again"


def turns(first: str, second: str) -> list[Message]:
    return [
        {"role": "user", "content": first},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": second},
    ]


@pytest.mark.parametrize(
    "said",
    [
        "That's wrong.",
        "no, that\u2019s not right, look at line 3",
        "Are you sure?",
        "hm, it doesn't work",
        "Das stimmt nicht!",
        "das ist falsch",
        "non, c'est faux",
        "No es correcto.",
    ],
)
def test_who_says_so_complains(said: str) -> None:
    assert complaint(turns("how many r are in strawberry", said)) == WRONG


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "How do I configure nginx to proxy websocket connections?",
            "How can I configure nginx so that it will proxy websocket connections?",
        ),
        ("Explain the halting problem please", "Please explain the halting problem"),
        ("Wie berechnet man Zinseszins monatlich genau?", "Zinseszins monatlich: wie berechnet man das genau?"),
    ],
)
def test_who_asks_the_same_again_is_not_content_either(first: str, second: str) -> None:
    assert complaint(turns(first, second)) == AGAIN


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How do I configure nginx?", "And how do I configure apache?"),
        ("How do I proxy websocket connections with nginx?", "And with apache?"),
        ("hello", "hello"),
        ("what is a monad", "thanks, that was helpful"),
        ("what is wrong with my code", "my printer doesn't work, what can I do?"),
        ("Translate 'good morning' into French", "Translate 'good morning' into Spanish"),
        ("Convert 100 dollars to euros please", "Convert 250 dollars to euros please"),
        ("Write a short birthday greeting for Peter", "Write a short birthday greeting for Anna"),
        ("What is 12 times 13? Explain shortly", "What is 14 times 15? Explain shortly"),
        (
            "summarise this",
            "Write an essay that starts with the words: that's wrong, she said, and left the room without a word.",
        ),
    ],
)
def test_who_asks_something_else_does_not_complain(first: str, second: str) -> None:
    assert complaint(turns(first, second)) == ""


REMINDER = "<system-reminder>\nFollow these instructions: never create files without need.\n</system-reminder>\n"
DETAILS = (
    "\n<environment_details>\n# Open tabs\nsrc/main.py, README.md\n# Current mode\nACT MODE\n</environment_details>"
)


@pytest.mark.parametrize("around", [REMINDER + "{}", "<task>\n{}\n</task>" + DETAILS], ids=["reminder", "details"])
@pytest.mark.parametrize(
    ("second", "why"), [("thanks a lot", ""), ("that's wrong", WRONG), ("name a colour that rhymes with purple", AGAIN)]
)
def test_what_a_client_puts_around_a_message_is_not_what_its_user_says(around: str, second: str, why: str) -> None:
    first = "please name a colour that rhymes with purple"
    assert complaint(turns(around.format(first), around.format(second))) == why


def test_there_must_have_been_an_answer() -> None:
    assert complaint([{"role": "user", "content": "that's wrong"}]) == ""
