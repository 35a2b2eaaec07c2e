"""The SSE decoder: whole events, every byte, wherever the portions are cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_router.http.sse import MAX_EVENT_BYTES, EventTooLong, SSEDecoder

_LINE_END = st.sampled_from(["\n", "\r\n"])
_TEXT = st.text('ab :{}[]"\\\u00e9\u4f60\U0001f600', max_size=30)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes | None]]:
    """A stream of events with one kind of line end, and the data of each event."""
    end = draw(_LINE_END)
    raw, expected = "", []
    for _ in range(draw(st.integers(0, 5))):
        texts = draw(st.lists(_TEXT, max_size=3))
        lines = [f"data: {text}" for text in texts]
        if draw(st.booleans()):
            lines.append(f": {draw(_TEXT)}")
        if not lines:
            continue
        raw += end.join(lines) + end + end
        expected.append("\n".join(texts).encode() if texts else None)
    return raw.encode(), expected


@given(streams(), st.lists(st.integers(1, 20), min_size=1))
def test_cutting_changes_nothing(stream: tuple[bytes, list[bytes | None]], sizes: list[int]) -> None:
    raw, expected = stream
    decoder, events, position, turn = SSEDecoder(), [], 0, 0
    while position < len(raw):
        size = sizes[turn % len(sizes)]
        events += decoder.feed(raw[position : position + size])
        position, turn = position + size, turn + 1
    last = decoder.finish()
    events += [last] if last else []
    assert b"".join(event.raw for event in events) == raw
    assert [event.data for event in events] == expected


@given(st.binary(max_size=300), st.integers(1, 9))
@example(b"\xef\xbb\xbf", 3)
@example(b"\xef\xbb\xbfdata: x\n\n", 1)
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", 2)
@example(b"\xef\xbb", 1)
def test_any_bytes_come_out_as_they_went_in(raw: bytes, size: int) -> None:
    decoder = SSEDecoder()
    events = [event for start in range(0, len(raw), size) for event in decoder.feed(raw[start : start + size])]
    last = decoder.finish()
    out = b"".join(event.raw for event in events) + (last.raw if last else b"")
    # A byte order mark at the start is no part of an event. Blank lines after the last one say nothing.
    expected = raw.removeprefix(b"\xef\xbb\xbf")
    assert expected.startswith(out)
    assert not expected[len(out) :].strip()


def test_a_comment_has_no_data() -> None:
    assert SSEDecoder().feed(b": hello\n\n")[0].data is None


def test_data_without_a_blank_after_the_colon() -> None:
    assert SSEDecoder().feed(b"data:x\n\n")[0].data == b"x"


def test_other_fields_are_not_data() -> None:
    assert SSEDecoder().feed(b"event: ping\nid: 3\ndata: {}\n\n")[0].data == b"{}"


def test_an_event_beyond_the_limit_is_refused() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))
    with pytest.raises(EventTooLong):
        decoder.feed(b"x")


def test_a_byte_order_mark_in_front_of_the_first_event_is_none_of_it() -> None:
    assert SSEDecoder().feed(b"\xef\xbb\xbfdata: {}\n\n")[0] == (b"data: {}\n\n", b"{}")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_long_event_of_many_portions_is_put_together_once(end: bytes) -> None:
    decoder, portion = SSEDecoder(), b"x" * 65_536
    assert decoder.feed(b"data: ") == []
    for _ in range(100):
        assert decoder.feed(portion) == []
    events = decoder.feed(end + end + b": next")
    assert [event.data for event in events] == [portion * 100]
