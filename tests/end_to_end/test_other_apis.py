"""The other APIs of clients: decided, speculated, cancelled, retried, told and kept like chat completions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import Connect, Lab
from tests.end_to_end.test_cancel import cancel
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, classifies, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Recorded, Reply, Stream

BOUND_S = 0.3
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


@dataclass(frozen=True)
class Api:
    """An API: its path, the body for a text, and the text, the end and the error in what it answers."""

    path: str
    body: Callable[[str], dict[str, Any]]
    text_in: Callable[[dict[str, Any]], str]
    end: bytes
    error: bytes
    wait: bytes
    """What a client that waits is sent; empty: nothing."""

    def ask(self, router: RunningRouter, text: str = "", **fields: Any) -> tuple[int, dict[str, str], bytes]:
        body = {"model": "auto", "stream": False, **self.body(text or anew()), **fields}
        return self._exchange(router, orjson.dumps(body))

    def _exchange(self, router: RunningRouter, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = router.connection()
        try:
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()


def text_of_response(answer: dict[str, Any]) -> str:
    return "".join(part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"])


def text_of_message(answer: dict[str, Any]) -> str:
    return "".join(block["text"] for block in answer["content"] if block["type"] == "text")


APIS = {
    "responses": Api(
        RESPONSES,
        lambda text: {"input": text},
        text_of_response,
        end=b"event: response.completed",
        error=b"event: error",
        wait=b"\n: ",
    ),
    "messages": Api(
        MESSAGES,
        lambda text: {"max_tokens": 100, "messages": [{"role": "user", "content": text}]},
        text_of_message,
        end=b"event: message_stop",
        error=b"event: error",
        wait=b'event: ping\ndata: {"type":"ping"}',
    ),
    "completions": Api(
        "/v1/completions",
        lambda text: {"prompt": text},
        lambda answer: answer["choices"][0]["text"],
        end=b"data: [DONE]",
        error=b'data: {"error"',
        wait=b"\n: ",
    ),
    "ollama_chat": Api(
        "/api/chat",
        lambda text: {"messages": [{"role": "user", "content": text}]},
        lambda answer: answer["message"]["content"],
        end=b'"done":true',
        error=b'{"error":',
        wait=b"",
    ),
    "ollama_generate": Api(
        "/api/generate",
        lambda text: {"prompt": text},
        lambda answer: answer["response"],
        end=b'"done":true',
        error=b'{"error":',
        wait=b"",
    ),
}


@pytest.fixture(params=list(APIS))
def api(request: pytest.FixtureRequest) -> Api:
    return APIS[request.param]


both = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@both
@pytest.mark.parametrize(("label", "route"), [("MODERATE", "primary"), ("COMPLEX", "xai")])
def test_it_is_decided_and_answered_by_the_route(lab: Lab, api: Api, label: str, route: str, stream: bool) -> None:
    lab.classifier.on(CHAT, classifies(label))
    lab.xai.on(RESPONSES, speaks_responses("from xai"))
    status, headers, body = api.ask(lab.router, stream=stream)
    assert status == 200
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == (route, "classifier")
    if stream:
        assert api.end in body
        assert api.error not in body
    else:
        assert api.text_in(orjson.loads(body)) == ("from the primary" if route == "primary" else "from xai")


def test_the_primary_is_called_while_the_classifier_thinks(lab: Lab, api: Api) -> None:
    api.ask(lab.router)  # it is known now what the primary does not speak
    lab.classifier.on(CHAT, classifies("MODERATE", delay=0.3))
    _, headers, body = api.ask(lab.router, stream=True)
    assert headers["x-router-speculation"] == "hit"
    assert api.end in body


def test_the_session_the_log_and_the_usage_are_those_of_any_request(lab: Lab, api: Api) -> None:
    text = anew("tell me")
    _, headers, _ = api.ask(lab.router, text, stream=True)
    session = lab.router.session(headers["x-session-id"])
    assert session["client_messages"][-1] == {"role": "user", "content": text}
    assert (session["status"], session["route"]) == ("ok", "primary")
    assert APIS[session["api"]] is api
    assert session["response"]["content"] == "from the primary"
    lab.router.wait_for_log(rf"REQUEST session={headers['x-session-id']} route=primary .*stream=True.*")
    assert session["usage"]["completion_tokens"] == 3


def test_a_stream_that_breaks_off_ends_with_an_error_in_the_apis_own_form(lab: Lab, api: Api) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="reset"))
    _, _, body = api.ask(lab.router, model="primary", stream=True)
    assert b"first" in body
    assert api.error in body.partition(b"first")[2]
    assert api.end not in body


def test_a_client_that_leaves_ends_the_call(lab: Lab, api: Api, raw: Connect) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    client = raw(lab.router.port)
    client.send_json(api.path, {"model": "primary", "stream": True, **api.body(anew())})
    client.read_until(b"first")
    left_at = time.monotonic()
    client.leave()
    call = lab.primary.calls(CHAT)[-1]
    assert call.gone.wait(5)
    assert call.disconnected_at is not None
    assert call.disconnected_at - left_at < BOUND_S


def test_a_cancelled_stream_ends_with_an_error(lab: Lab, api: Api, raw: Connect) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    client = raw(lab.router.port)
    payload = {"model": "primary", "stream": True, **api.body(anew())}
    client.send_json(api.path, payload, headers=f"x-request-id: mine-{api.path.replace('/', '-')}\r\n")
    client.read_until(b"first")
    assert cancel(lab.router, f"mine-{api.path.replace('/', '-')}")[0] == 200
    assert api.error in client.read_until(b"\r\n0\r\n").partition(b"first")[2]
    assert api.end not in client.received


def test_a_client_that_waits_for_a_search_is_told_in_the_apis_own_form(lab: Lab, api: Api) -> None:
    lab.xai.on(SEARCH, Plain({}, status=500, delay=0.8))
    _, _, body = api.ask(lab.router, model="enrich", stream=True)
    assert api.end in body
    before = b"\n" + body.partition(b"from ")[0]
    assert api.wait in before
    if not api.wait:
        assert all(orjson.loads(line) for line in body.split(b"\n") if line)


def test_a_failure_leads_to_another_backend(lab: Lab, api: Api) -> None:
    lab.classifier.on(CHAT, classifies("MODERATE"))
    lab.primary.on(CHAT, Plain({"error": {"message": "broken"}}, status=500))
    lab.xai.on(RESPONSES, speaks_responses("from xai"))
    status, headers, body = api.ask(lab.router)
    assert (status, headers["x-router-route"]) == (200, "xai")
    assert api.text_in(orjson.loads(body)) == "from xai"


def test_errors_have_the_apis_own_envelope(lab: Lab, api: Api) -> None:
    status, headers, body = api.ask(lab.router, model="nobody-knows-this")
    error = orjson.loads(body)
    assert status == 404
    assert headers["x-request-id"]
    if api.path == MESSAGES:
        assert (error["type"], error["error"]["type"]) == ("error", "not_found_error")
    elif api.path.startswith("/api/"):
        assert error["error"].startswith("The model 'nobody-knows-this' does not exist here.")
    else:
        assert error["error"]["code"] == "model_not_found"


def test_what_a_server_does_not_speak_is_asked_once(lab: Lab) -> None:
    lab.router.get("/health")
    for _ in range(3):
        assert APIS["responses"].ask(lab.router, model="primary")[0] == 200
    assert len(lab.primary.calls(RESPONSES)) <= 1


def response_events(text: str = "native") -> list[bytes]:
    """What a server says that speaks the Responses API in full."""
    response = {"id": "resp_1", "object": "response", "model": "m", "parallel_tool_calls": True}
    whole = {**response, "status": "completed"}
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.output_text.delta", **place, "delta": text},
        {"type": "response.something_new", "future": True},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**whole, "output": [item], "usage": usage}},
    ]
    return [
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
        for number, event in enumerate(events)
    ]


def speaks_responses(text: str = "native") -> Callable[[Recorded], Reply]:
    def reply(request: Recorded) -> Reply:
        events = response_events(text)
        if request.body.get("stream"):
            return Stream(events)
        last = orjson.loads(events[-1].partition(b"data: ")[2])
        return Plain(last["response"])

    return reply


@both
def test_who_speaks_the_api_gets_the_body_as_it_is_and_the_answer_comes_back_byte_for_byte(
    lab: Lab, stream: bool
) -> None:
    lab.xai.on(RESPONSES, speaks_responses())
    fields = {"reasoning": {"effort": "low"}, "something_new": [1, 2], "include": ["reasoning.encrypted_content"]}
    status, headers, body = APIS["responses"].ask(lab.router, "hi", model="xai/grok-4.7", stream=stream, **fields)
    assert (status, headers["x-router-model"]) == (200, "grok-4.7")
    sent = lab.xai.calls(RESPONSES)[-1].body
    assert sent == {
        "model": "grok-4.7",
        "input": "hi",
        "store": False,
        **({"stream": True} if stream else {}),
        **fields,
    }
    if stream:
        assert body == b"".join(response_events())
    else:
        assert orjson.loads(body)["id"] == "resp_1"
    session = lab.router.session(headers["x-session-id"])
    assert session["response"]["content"] == "native"
    assert session["usage"]["prompt_tokens"] == 5


def test_the_date_and_the_webs_context_have_their_places_in_a_body_that_is_passed_on(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    lab.xai.on(RESPONSES, speaks_responses())
    APIS["responses"].ask(lab.router, "why?", instructions="be brief")
    sent = lab.xai.calls(RESPONSES)[-1].body
    assert sent["instructions"].startswith("be brief\n\nCurrent date: ")


def test_a_search_tool_searches_nothing_unless_the_decision_says_so(lab: Lab) -> None:
    tools = [{"type": "web_search"}]
    status, headers, _ = APIS["responses"].ask(lab.router, "rename this variable", tools=tools)
    assert (status, headers["x-router-route"]) == (200, "primary")
    assert "web_search was taken out" in headers["x-router-warning"]
    assert not lab.xai.calls(SEARCH)
    status, headers, _ = APIS["responses"].ask(
        lab.router, anew(), tools=tools, tool_choice={"type": "web_search"}, model="auto"
    )
    assert (status, headers["x-router-route"], headers["x-router-decided-by"]) == (200, "enrich", "explicit")
    assert len(lab.xai.calls(SEARCH)) == 1


def test_a_field_that_the_backends_api_has_no_place_for_is_named(lab: Lab) -> None:
    status, _, body = APIS["completions"].ask(lab.router, echo=True, model="xai")
    error = orjson.loads(body)["error"]
    assert (status, error["param"]) == (400, "echo")


def test_an_editors_completion_is_not_decided(tmp_path: Path, upstream: FakeUpstream) -> None:
    text = {"object": "text_completion", "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}]}
    upstream.on("/v1/completions", Plain(text))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        status, headers, _ = APIS["completions"].ask(router, "def add(", suffix="\n", model="auto")
    assert (status, headers["x-router-route"], headers["x-router-decided-by"]) == (200, "meta", "meta")
    assert upstream.calls("/v1/completions")[-1].body["suffix"] == "\n"


def test_a_tool_loop_stays_where_its_turn_went(lab: Lab) -> None:
    """The second request has the same question and the result of the call behind it."""
    question = anew("what is the weather?")
    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    lab.primary.on(CHAT, Stream([chunk({"tool_calls": [call]}, "tool_calls"), b"data: [DONE]\n\n"]), says("sunny"))
    _, _, body = APIS["responses"].ask(lab.router, question, tools=[tool], stream=True)
    last = [line for line in body.split(b"\n") if line.startswith(b"data: ")][-1]
    (item,) = orjson.loads(last[6:])["response"]["output"]
    assert (item["type"], item["call_id"]) == ("function_call", "call_1")
    output = {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees"}
    items = [{"role": "user", "content": question}, item, output]
    status, _, body = APIS["responses"].ask(lab.router, tools=[tool], input=items)
    assert (status, text_of_response(orjson.loads(body))) == (200, "sunny")
    sent = lab.primary.calls(CHAT)[-1].body["messages"]
    assert sent[-1] == {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}
    assert sent[-2]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}


def test_anthropics_provider_is_asked_in_its_api_by_clients_of_chat_completions(lab: Lab) -> None:
    # Without a key it is no provider here: its translation has tests of its own, its name leads to auto.
    status, headers, _ = lab.router.chat(anew(), model="claude-opus-5-5")
    assert (status, headers["x-router-decided-by"]) == (200, "classifier")


def test_tokens_are_counted_by_the_primary_or_estimated(lab: Lab) -> None:
    path = "/v1/messages/count_tokens"
    asked = Api(path, lambda text: {"messages": [{"role": "user", "content": text}]}, str, b"", b"", b"")
    status, headers, body = asked.ask(lab.router, "12345678")
    assert (status, orjson.loads(body)) == (200, {"input_tokens": 2})
    assert "an estimate" in headers["x-router-warning"]
    lab.primary.on(path, Plain({"input_tokens": 11}))
    _, headers, body = asked.ask(lab.router, "12345678")
    assert orjson.loads(body) == {"input_tokens": 11}
    assert "x-router-warning" not in headers


def test_a_completion_that_ends_without_its_end_gets_one(tmp_path: Path, upstream: FakeUpstream) -> None:
    text = {"object": "text_completion", "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}]}
    upstream.on("/v1/completions", Stream([b"data: " + orjson.dumps(text) + b"\n\n"]))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        _, _, body = APIS["completions"].ask(router, stream=True, model="primary")
    assert body == b"data: " + orjson.dumps(text) + b"\n\ndata: [DONE]\n\n"


def test_a_wrong_model_says_nothing_of_what_a_server_speaks(tmp_path: Path, upstream: FakeUpstream) -> None:
    missing = Plain({"error": {"message": "no model nope"}}, status=404)
    upstream.on(RESPONSES, missing, speaks_responses())
    upstream.on(CHAT, missing)
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        status, _, body = APIS["responses"].ask(router, model="primary/nope")
        assert (status, "no model nope" in orjson.loads(body)["error"]["message"]) == (404, True)
        assert orjson.loads(APIS["responses"].ask(router, model="primary")[2])["id"] == "resp_1"


def test_a_request_that_hangs_is_listed_with_its_id_whatever_its_api(lab: Lab, api: Api, raw: Connect) -> None:
    lab.primary.on(CHAT, Hang())
    client = raw(lab.router.port)
    client.send_json(
        api.path, {"model": "primary", "stream": True, **api.body(anew())}, headers="x-request-id: hung\r\n"
    )
    assert eventually(lambda: lab.primary.calls(CHAT))
    assert cancel(lab.router, "hung")[0] == 200
