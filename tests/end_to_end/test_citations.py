"""What ENRICH has found is in the answer, machine-readable, in every API."""

from __future__ import annotations

import http.client
from typing import Any

import openai
import orjson
import pytest

from tests.end_to_end.conftest import Lab
from tests.end_to_end.test_explain import objects
from tests.fakes.personas import CHAT, SEARCH, anew, finds
from tests.fakes.upstream import Plain

URL = "https://example.org/a"
DOORS: dict[str, Any] = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/responses": lambda text: {"input": text},
    "/v1/messages": lambda text: {"max_tokens": 9, "messages": [{"role": "user", "content": text}]},
    "/v1/completions": lambda text: {"prompt": text},
    "/api/chat": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/api/generate": lambda text: {"prompt": text},
}


def ask(lab: Lab, path: str, **fields: Any) -> tuple[http.client.HTTPResponse, bytes]:
    connection = lab.router.connection()
    body = {"model": "enrich", "stream": False, **DOORS[path](anew("rain in Paris?")), **fields}
    try:
        connection.request("POST", path, orjson.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", DOORS)
def test_a_whole_answer_has_the_pages(lab: Lab, path: str) -> None:
    response, body = ask(lab, path)
    assert (response.status, response.getheader("x-router-route")) == (200, "enrich")
    assert orjson.loads(body)["citations"] == [URL]


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("delay", [0.0, 0.8], ids=["at once", "after a wait"])
def test_a_stream_has_them_once(lab: Lab, path: str, delay: float) -> None:
    lab.xai.on(SEARCH, finds("It rains in Paris.", delay=delay))
    _, body = ask(lab, path, stream=True)
    assert [event["citations"] for event in objects(body) if "citations" in event] == [[URL]]


def test_openais_client_has_the_annotations(lab: Lab) -> None:
    client = openai.OpenAI(base_url=f"{lab.router.url}/v1", api_key="x")
    messages: Any = [{"role": "user", "content": anew("rain in Paris?")}]
    whole = client.chat.completions.create(model="enrich", messages=messages)
    annotations = whole.choices[0].message.annotations
    assert annotations is not None
    assert [one.url_citation.url for one in annotations] == [URL]
    chunks = list(client.chat.completions.create(model="enrich", messages=messages, stream=True))
    told = [one for chunk in chunks for choice in chunk.choices if (one := getattr(choice.delta, "annotations", None))]
    assert [one["url_citation"]["url"] for one in told[0]] == [URL]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "from the primary"
    response = client.responses.create(model="enrich", input=anew("rain in Paris?"))
    (message,) = response.output
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    assert [one.url for one in message.content[0].annotations if one.type == "url_citation"] == [URL]
    client.close()


def test_with_the_decision_in_the_answer_both_are_there(lab: Lab) -> None:
    connection = lab.router.connection()
    body = {"model": "enrich", "stream": True, **DOORS[CHAT](anew("rain in Paris?"))}
    connection.request("POST", CHAT, orjson.dumps(body), {"x-router-explain": "body"})
    first = objects(connection.getresponse().read())[0]
    connection.close()
    assert (first["citations"], first["x_router"]["route"]) == ([URL], "enrich")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_without_a_search_or_if_that_fails_nothing_is_added(lab: Lab, stream: bool) -> None:
    assert b"citations" not in ask(lab, CHAT, model="primary", stream=stream)[1]
    lab.xai.on(SEARCH, Plain({"error": "boom"}, status=500))
    response, body = ask(lab, CHAT, stream=stream)
    assert response.status == 200
    assert b"citations" not in body
