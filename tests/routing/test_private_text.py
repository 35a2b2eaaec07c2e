"""Finding what is private in a text: what it is and what only looks like it, and how long that takes."""

from __future__ import annotations

import time

import orjson
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
PRIVATE += [
    ("card", "Booking 4000 4111 1111 1111 1111"),
    ("card", "PIN 4017 4111 1111 1111 1111 ok"),
    ("card", "amex 3782 822463 10005 12/27"),
    ("card", "378282246310005 12/27"),
    ("card", "4111\u00a01111\u202f1111\u00a01111"),
    ("card", "4111\n1111\n1111\n1111"),
    ("card", "4111.1111.1111.1111"),
    ("card", "\uff14\uff11\uff11\uff11 1111 1111 1111"),
    ("card", "card_4111111111111111"),
    ("card", "3056 9309 0259 04"),
    ("card", "3530111333300000"),
    ("iban", "order AT12 ABCDEFGHIJKL DE89 3704 0044 0532 0130 00"),
    ("iban", "BE71 0961 2345 6760 DE89 3704 0044 0532 0130 00"),
    ("iban", "de89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000"),
    ("secret", 'DB_PASSWORD="hunter2hunter2"'),
    ("secret", 'client_secret = "a1b2c3d4e5"'),
    ("secret", "PASSWORD=hunter2hunter2\n"),
    ("secret", "password: hunter2hunter2"),
    ("secret", "'password' => 'hunter2hunter2'"),
    ("secret", 'password: str = "hunter2hunter2"'),
    ("secret", "postgres://admin:hunter2@db:5432/app"),
]
PRIVATE += [
    ("card", f"4111{mark}1111{mark}1111{mark}1111")
    for mark in (
        "\u200b",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\u180e",
        "\u2010",
        "\u2011",
        "\u2013",
        "\u2212",
        " \u200b",
        "\u2066",
        "\u2069",
        "\u061c",
        "\ufe0f",
        "\U000e0041",
    )
]
PRIVATE += [
    ("iban", "DE89\u200b3704\u200b0044\u200b0532\u200b0130\u200b00"),
    ("iban", "DE89\u20113704\u20110044\u20110532\u20110130\u201100"),
    ("iban", "DE89.3704.0044.0532.0130.00"),
    ("secret", "sk-\u200bproj-abcdefghijklmnopqrstuvwxyz123456"),
    ("secret", "-----BEGIN PGP PRIVATE KEY BLOCK-----"),
]
HARMLESS = [
    ("card", "4111 1111 1111 1112"),
    ("card", "order 4000123412341234567890123"),
    ("card", "the number 4111"),
    ("card", "phone 49 170 1234567"),
    ("card", "2026-11-29 21:10:42 " * 2000),
    ("iban", "DE89 3704 0044 0532 0130 01"),
    ("iban", "the SKU AB12 CDEF is out"),
    ("iban", "DE89 3704 0044"),
    ("secret", "password = ask_for_it()"),
    ("secret", "how do I rotate an API key?"),
    ("secret", "the secret: everything changes"),
    ("secret", "token = tokenizer.next_token()"),
    ("secret", "see https://example.org:8080/path"),
    ("secret", "task-management-for-everybody-in-the-world"),
    ("email", "use @dataclass, or a@b"),
    ("email", "the decorator @app.route"),
]


@pytest.mark.parametrize(("kind", "text"), PRIVATE)
def test_what_is_private_is_found_and_not_repeated(kind: str, text: str) -> None:
    found = PrivateText([kind], {}).found_in(text)
    assert found == KINDS[kind][0]
    assert found not in text


@pytest.mark.parametrize(("kind", "text"), HARMLESS)
def test_what_only_looks_like_it_is_not(kind: str, text: str) -> None:
    assert PrivateText([kind], {}).found_in(text) == ""


MAIL = "anna@example.org"
BODIES = {
    "said": {"messages": [{"role": "user", "content": MAIL}, {"role": "user", "content": "x"}]},
    "a system's": {"messages": [{"role": "system", "content": MAIL}]},
    "a tool's": {"messages": [{"role": "tool", "content": MAIL}]},
    "a part": {"messages": [{"role": "user", "content": [{"type": "text", "text": MAIL}]}]},
    "arguments": {"messages": [{"tool_calls": [{"function": {"arguments": f'{{"to": "{MAIL}"}}'}}]}]},
    "arguments, not JSON": {"messages": [{"tool_calls": [{"function": {"arguments": f'{{"to": "{MAIL}'}}]}]},
    "arguments, after a line break": {
        "messages": [{"tool_calls": [{"function": {"arguments": '\n {"to": "anna\\u0040example.org"}'}}]}]
    },
    "arguments, an object": {"messages": [{"tool_calls": [{"function": {"arguments": {"to": MAIL}}}]}]},
    "a custom tool's": {"messages": [{"tool_calls": [{"custom": {"input": f"to {MAIL}"}}]}]},
    "an older call's": {"messages": [{"function_call": {"arguments": f'{{"to": "{MAIL}"}}'}}]},
    "a thought": {"messages": [{"role": "assistant", "reasoning_content": MAIL}]},
    "a prediction": {"prediction": {"type": "content", "content": MAIL}},
    "a user's name": {"user": MAIL},
    "an item of any kind": {"input": [{"type": "shell_call_output", "output": [{"stdout": MAIL}]}]},
    "instructions": {"instructions": MAIL},
    "a document": {"messages": [{"content": [{"type": "document", "source": {"content": [{"text": MAIL}]}}]}]},
    "a list of lists": {"input": [[MAIL]]},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_all_texts_of_a_body_are_looked_into(body: dict[str, object]) -> None:
    assert ALL.found_in_body(body) == "an e-mail address"


def test_parts_of_one_message_are_read_in_one_piece() -> None:
    parts = [{"type": "text", "text": "pay with 4111 1111"}, {"type": "text", "text": "1111 1111"}]
    assert ALL.found_in_body({"messages": [{"content": parts}]}) == "a card number"


@pytest.mark.parametrize("expression", ["K\u2013[0-9]{6}", "K-[0-9]{6}", "K\u2013?\u200b"])
def test_an_owners_pattern_finds_a_dash_as_it_is_written_and_as_it_is_typed(expression: str) -> None:
    finder = PrivateText([], {"customers": expression})
    assert finder.found_in("for K\u2013123456 and K\u200b") == "what 'customers' looks for"


def test_what_tools_are_described_as_is_not() -> None:
    assert not ALL.found_in_body({"tools": [{"function": {"description": MAIL}}], "messages": [{"content": "hello"}]})


@pytest.mark.parametrize(
    "written",
    ["pay with\n4111 1111 1111 1111", "keys:\nsk-ant-api03-abcdefghijklmnopqrstuvwx", 'password = "hunter2hunter2"'],
)
def test_what_a_tool_is_to_write_is_read_as_it_will_be_written(written: str) -> None:
    arguments = orjson.dumps({"path": "a.txt", "text": written}).decode()
    assert ALL.found_in_body({"messages": [{"tool_calls": [{"function": {"arguments": arguments}}]}]})


def test_a_field_whose_name_says_that_it_is_secret_counts() -> None:
    assert ALL.found_in_body({"messages": [{"content": "{}"}], "extra": {"password": "hunter2hunter2"}}) == "a secret"
    assert ALL.found_in_body({"card": 4111111111111111}) == "a card number"


def test_nesting_has_an_end() -> None:
    deep: object = MAIL
    for _ in range(200):
        deep = [deep]
    assert ALL.found_in_body({"messages": deep}) == "an e-mail address"


def test_a_text_with_more_such_numbers_than_are_looked_at_is_taken_to_be_private() -> None:
    near = "4111 1111 1111 1112 "
    assert PrivateText(["card"], {}).found_in(near * 400) == ""
    assert PrivateText(["card"], {}).found_in(near * 600) == "a card number"


def test_own_patterns_are_found_by_their_names() -> None:
    own = PrivateText([], {"customers": r"\bK-\d{6}\b"})
    assert own.found_in("what about K-123456?") == "what 'customers' looks for"
    assert own.found_in("what about K-12345?") == ""


def test_one_that_is_no_expression_is_named() -> None:
    with pytest.raises(BadPattern, match=r"^customers: missing \)"):
        PrivateText([], {"customers": "("})
    with pytest.raises(BadPattern, match=r"^again: "):
        PrivateText([], {"again": r"(a)\1"})


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    ALL.found_in_body({"messages": [{"role": "user", "content": text}]})


@pytest.mark.parametrize(
    "text",
    ["The quick fox, 1234 times. ", "a.b.c.d@e.f-", "DE12 CDEF GHIJ ", "4111 1111 1111 1112 ", "sk-abc eyJ.eyJ. ", "4"],
)
def test_it_takes_time_in_proportion_to_the_text(text: str) -> None:
    def seconds(size: int) -> float:
        told = (text * (size // len(text) + 1))[:size]
        best = []
        for _ in range(5):
            started = time.perf_counter()
            ALL.found_in(told)
            best.append(time.perf_counter() - started)
        return min(best)

    ALL.found_in("warm")
    assert seconds(400_000) < 12 * seconds(100_000) + 0.002
