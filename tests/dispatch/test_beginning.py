"""The probabilities that stand in an answer."""

from __future__ import annotations

import orjson
import pytest

from ai_router.dispatch.beginning import logprobs_in_answer, logprobs_in_events
from tests.fakes.personas import chunk


def tokens(*values: float) -> dict[str, object]:
    return {"content": [{"token": "x", "logprob": value} for value in values]}


def event(logprobs: object) -> bytes:
    payload = {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": logprobs}]}
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def test_those_of_a_stream_are_put_together() -> None:
    assert logprobs_in_events(event(tokens(-0.5, -1)) + chunk({"content": "y"}) + event(tokens(-2.0))) == (-0.5, -1, -2)


def test_those_of_a_whole_answer() -> None:
    assert logprobs_in_answer(orjson.dumps({"choices": [{"message": {}, "logprobs": tokens(-0.5)}]})) == (-0.5,)


@pytest.mark.parametrize("odd", [None, [], {"content": None}, {"content": [None]}, {"content": [{"logprob": "high"}]}])
def test_other_shapes_have_none(odd: object) -> None:
    assert logprobs_in_events(event(odd)) == ()
    assert logprobs_in_answer(b'{"choices": [], "logprobs": 1}') == ()
    assert logprobs_in_events(b'data: {"logprobs":\n\n') == ()
