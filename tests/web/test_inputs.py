"""What requests have in their query parameters, checked."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from ai_router.errors import InvalidRequest
from ai_router.web.inputs import cursor, integer, is_number, page_size

INT64_MAX = (1 << 63) - 1
APP = Flask(__name__)


def asked(query: str):  # type: ignore[no-untyped-def]
    return APP.test_request_context(f"/?{query}")


@pytest.mark.parametrize(("value", "size"), [("1", 1), ("007", 7), ("200", 200)])
def test_a_page_is_as_large_as_is_asked_for(value: str, size: int) -> None:
    with asked(f"limit={value}"):
        assert page_size() == size


@pytest.mark.parametrize("value", ["", "0", "201", "-1", "1.5", "²", "٣", "1" * 5000, " 1"])
def test_any_other_size_is_refused_by_its_name(value: str) -> None:
    with asked(f"limit={quote(value)}"), pytest.raises(InvalidRequest) as refused:
        page_size()
    assert refused.value.param == "limit"


def test_without_it_the_default_counts() -> None:
    with asked(""):
        assert (page_size(), integer("slow", 0, 9, 4), cursor("before")) == (50, 4, None)


@pytest.mark.parametrize(
    ("value", "moment"), [("17", 17), (str(INT64_MAX), INT64_MAX), ("1795981525.4889102", 1795981525.4889102)]
)
def test_a_cursor_is_a_moment(value: str, moment: float) -> None:
    with asked(f"before={value}"):
        assert cursor("before") == moment


@pytest.mark.parametrize("value", [str(INT64_MAX + 1), "9" * 19, "9" * 5000, "1e400", "nan", "²", "-1", "1.", "x"])
def test_what_no_page_has_said_is_no_cursor(value: str) -> None:
    with asked(f"before={quote(value)}"), pytest.raises(InvalidRequest):
        cursor("before")


@given(st.text(max_size=25))
def test_what_is_a_number_can_be_read_and_kept_in_a_database(text: str) -> None:
    if is_number(text):
        assert 0 <= int(text) <= INT64_MAX
