"""Finding what is private in a text: what it is and what only looks like it, and how long that takes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.private_text import KINDS, BadPattern, PrivateText

ALL = PrivateText(tuple(KINDS), {})
PRIVATE = [
    ("card", "pay with 4111 1111 1111 1111 please"),
    ("card", "4111111111111111"),
    ("card", "card:\n5555-5555-5555-4444\nthanks"),
    ("card", "amex 3782 822463 10005"),
    ("card", "6011000990139424"),
    ("card", "2223003122003222"),
    ("iban", "my IBAN is DE89 3704 0044 0532 0130 00."),
    ("iban", "GB82WEST12345698765432"),
    ("iban", "NO93 8601 1117 947"),
    ("iban", "send it to DE89 3704 0044 0532 0130 00 EUR TODAY"),
    ("secret", "why does sk-proj-abcdefghijklmnopqrstuvwxyz123456 not work"),
    ("secret", "AKIAIOSFODNN7EXAMPLE"),
    ("secret", "token ghp_" + "a1B2" * 9),
    ("secret", "-----BEGIN RSA PRIVATE KEY-----\nMIIE"),
    ("secret", "-----BEGIN PRIVATE KEY-----"),
    ("secret", '{"password": "hunter2hunter2"}'),
    ("secret", "API_KEY='0123456789abcdef'"),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"),
    ("email", "write to anna.svensson+home@mail.example.org today"),
]
HARMLESS = [
    ("card", "4111 1111 1111 1112"),
    ("card", "order 4000123412341234567890123"),
    ("card", "the number 4111"),
    ("card", "phone 49 170 1234567"),
    ("card", "2026-11-29 21:10:42"),
    ("iban", "DE89 3704 0044 0532 0130 01"),
    ("iban", "the SKU AB12 CDEF is out"),
    ("iban", "DE89 3704 0044"),
    ("secret", "password = ask_for_it()"),
    ("secret", "how do I rotate an API key?"),
    ("secret", "task-management-for-everybody-in-the-world"),
    ("email", "use @dataclass, or a@b"),
    ("email", "the decorator @app.route"),
]


@pytest.mark.parametrize(("kind", "text"), PRIVATE)
def test_what_is_private_is_found_and_not_repeated(kind: str, text: str) -> None:
    found = PrivateText([kind], {}).found_in(text.encode())
    assert found == KINDS[kind][0]
    assert found not in text


@pytest.mark.parametrize(("kind", "text"), HARMLESS)
def test_what_only_looks_like_it_is_not(kind: str, text: str) -> None:
    assert PrivateText([kind], {}).found_in(text.encode()) == ""


def test_a_conversation_is_read_whole_with_its_calls_of_tools() -> None:
    mail = "anna@example.org"
    for message in (
        {"role": "user", "content": mail},
        {"role": "system", "content": mail},
        {"role": "tool", "content": mail},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": mail}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": f'{{"to": "{mail}"}}'}}]},
    ):
        assert ALL.found_in_messages([{"role": "user", "content": "hello"}, message, {"role": "user", "content": "x"}])
    assert not ALL.found_in_messages([{"role": "user", "content": "hello"}, {"role": "user", "content": None}])


def test_a_text_with_more_such_numbers_than_are_looked_at_is_taken_to_be_private() -> None:
    near = b"4111 1111 1111 1112 "
    assert PrivateText(["card"], {}).found_in(near * 400) == ""
    assert PrivateText(["card"], {}).found_in(near * 600) == "a card number"


def test_own_patterns_are_found_by_their_names() -> None:
    own = PrivateText([], {"customers": r"\bK-\d{6}\b"})
    assert own.found_in(b"what about K-123456?") == "what 'customers' looks for"
    assert own.found_in(b"what about K-12345?") == ""


def test_one_that_is_no_expression_is_named() -> None:
    with pytest.raises(BadPattern, match=r"^customers: missing \)"):
        PrivateText([], {"customers": "("})
    with pytest.raises(BadPattern, match=r"^again: "):
        PrivateText([], {"again": r"(a)\1"})


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    ALL.found_in_messages([{"role": "user", "content": text}])


@pytest.mark.parametrize(
    "text",
    ["The quick fox, 1234 times. ", "a.b.c.d@e.f-", "DE12 CDEF GHIJ ", "4111 1111 1111 1112 ", "sk-abc eyJ.eyJ. ", "4"],
)
def test_it_takes_time_in_proportion_to_the_text(text: str) -> None:
    def seconds(size: int) -> float:
        told = (text * (size // len(text) + 1))[:size].encode()
        best = []
        for _ in range(5):
            started = time.perf_counter()
            ALL.found_in(told)
            best.append(time.perf_counter() - started)
        return min(best)

    ALL.found_in(b"warm")
    assert seconds(400_000) < 12 * seconds(100_000) + 0.002
