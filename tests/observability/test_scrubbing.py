"""Keys do not stand in what is written down."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from ai_router.observability.scrubbing import Scrubber

KEYS = ("xai-0123456789", 'odd"key\\with-marks', "xai-0123456789-longer")


def test_every_key_is_taken_out_of_a_text_the_longest_first() -> None:
    assert Scrubber(KEYS).text("a xai-0123456789-longer b xai-0123456789 c") == "a [key] b [key] c"


def test_a_key_is_found_in_json_as_json_writes_it() -> None:
    document = orjson.dumps({"content": f"my key is {KEYS[1]}!"})
    assert orjson.loads(Scrubber(KEYS).json(document)) == {"content": "my key is [key]!"}


def test_a_key_that_is_a_word_is_left_alone() -> None:
    assert Scrubber(["hi"]).text("hi there, this is high") == "hi there, this is high"


def test_without_keys_nothing_is_touched() -> None:
    assert Scrubber().json(b"{}") == b"{}"


@given(st.text(), st.text())
def test_wherever_it_stands_a_key_goes(before: str, after: str) -> None:
    scrubber = Scrubber(KEYS)
    for key in KEYS:
        assert key not in scrubber.text(before + key + after)
        assert orjson.loads(scrubber.json(orjson.dumps([before.encode("utf-8", "ignore").decode() + key])))
