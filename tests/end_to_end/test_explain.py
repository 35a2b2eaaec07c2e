"""x-router-explain: body: what was decided, in the answer itself, in every API."""

from __future__ import annotations

import http.client
from typing import Any

import openai
import orjson
import pytest

from tests.end_to_end.conftest import Lab
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, classifies, finds, says
from tests.fakes.upstream import Stream

EXPLAIN = {"x-router-explain": "body", "content-type": "application/json"}
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
    "/api/chat": {"messages": [{"role": "user", "content": "hello"}]},
    "/api/generate": {"prompt": "hello"},
}


def ask(lab: Lab, path: str, fields: dict[str, Any], headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
    connection = lab.router.connection()
    try:
        connection.request("POST", path, orjson.dumps({"model": "auto", **DOORS[path], **fields}), headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def objects(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of a stream's events."""
    lines = (line.removeprefix(b"data: ") for line in stream.splitlines())
    return [orjson.loads(line) for line in lines if line.startswith(b"{")]


@pytest.mark.parametrize("path", DOORS)
def test_a_whole_answer_says_it(lab: Lab, path: str) -> None:
    response, body = ask(lab, path, {"stream": False}, EXPLAIN)
    told = orjson.loads(body)["x_router"]
    assert response.status == 200
    assert (told["route"], told["decided_by"], told["label"]) == ("primary", "classifier", "MODERATE")
    assert told["request_id"] == response.getheader("x-request-id")
    assert f"{told['confidence']:.3f}" == response.getheader("x-router-confidence")
    assert told["model"] == response.getheader("x-router-model")
    assert told["speculation"] == response.getheader("x-router-speculation")


@pytest.mark.parametrize("path", DOORS)
def test_the_first_event_of_a_stream_says_it_and_no_other(lab: Lab, path: str) -> None:
    response, body = ask(lab, path, {"stream": True}, EXPLAIN)
    first, *others = objects(body)
    assert first["x_router"]["session_id"] == response.getheader("x-session-id")
    assert first["x_router"]["route"] == "primary"
    assert others
    assert not [event for event in others if "x_router" in event]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_without_the_header_nothing_is_added_and_with_it_nothing_else_changes(lab: Lab, stream: bool) -> None:
    answers = [ask(lab, CHAT, {"stream": stream}, headers)[1] for headers in ({}, EXPLAIN)]
    assert b"x_router" not in answers[0]
    start = answers[1].index(b',"x_router":')
    # It is the last member of its object, and has no object in it.
    end = answers[1].index(b"}", start) + 1
    assert answers[1][:start] + answers[1][end:] == answers[0]


def test_a_stream_that_waits_says_it_with_the_answer(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    lab.xai.on(SEARCH, finds("It rains in Paris.", delay=0.8))
    _, body = ask(lab, CHAT, {"stream": True, "messages": [{"role": "user", "content": anew("rain?")}]}, EXPLAIN)
    assert body.startswith(b": ")
    assert objects(body)[0]["x_router"]["route"] == "enrich"


def test_an_event_that_comes_in_pieces_says_it_too(lab: Lab) -> None:
    event = chunk({"content": "hello"})
    pieces = [event[:9], event[9:], chunk({}, "stop"), b"data: [DONE]\n\n"]
    lab.primary.on(CHAT, Stream(pieces, gap=0.05))
    _, body = ask(lab, CHAT, {"stream": True, "messages": [{"role": "user", "content": anew()}]}, EXPLAIN)
    assert [("x_router" in event) for event in objects(body)] == [True, False]


def test_openais_client_hands_it_on(lab: Lab) -> None:
    client = openai.OpenAI(base_url=f"{lab.router.url}/v1", api_key="x", default_headers={"x-router-explain": "body"})
    messages: Any = [{"role": "user", "content": anew()}]
    whole = client.chat.completions.create(model="auto", messages=messages)
    assert whole.model_extra is not None
    assert whole.model_extra["x_router"]["route"] == "primary"
    first, *_ = client.chat.completions.create(model="auto", messages=messages, stream=True)
    assert first.model_extra is not None
    assert first.model_extra["x_router"]["route"] == "primary"
    client.close()


def test_another_value_is_refused(lab: Lab) -> None:
    lab.primary.on(CHAT, says("hello"))
    for path in (CHAT, "/v1/responses"):
        response, body = ask(lab, path, {}, {**EXPLAIN, "x-router-explain": "headers"})
        error = orjson.loads(body)["error"]
        assert (response.status, error["param"]) == (400, "x-router-explain")
