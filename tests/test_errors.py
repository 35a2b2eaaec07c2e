"""The error tree and its one renderer."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from ai_router import errors
from ai_router.envelope import envelope, error_event
from ai_router.errors import InvalidRequest, RouterError, Source, UpstreamFailed


def whole_tree(root: type[RouterError] = RouterError) -> Iterator[type[RouterError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from whole_tree(kind)


@pytest.mark.parametrize("kind", list(whole_tree()), ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_drawing(kind: type[RouterError]) -> None:
    assert f"- {kind.__name__}" in str(errors.__doc__)


def test_the_envelope_is_openai_s() -> None:
    assert envelope(InvalidRequest("wrong", "messages[0]")) == {
        "error": {"message": "wrong", "type": "invalid_request_error", "param": "messages[0]", "code": "invalid_value"}
    }


def test_an_error_event_is_a_data_event_that_the_sdk_raises_on() -> None:
    event = error_event(UpstreamFailed("boom", Source("xai", "grok")))
    assert event.startswith(b"data: {")
    assert event.endswith(b"\n\n")
    assert orjson.loads(event[6:])["error"]["message"] == "xai (grok): boom"
