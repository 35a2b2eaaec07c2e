"""Local-only, failing closed: whatever happens, by whatever door, not a byte of the request leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, Lab, well_behaved
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, anew, chunk, classifies, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import Plain, Reply, Slam, Stream, fake_upstream

LOCAL_ONLY = {"x-router-policy": "local-only"}
OWNER = "an-owners-key-of-the-test"
HARD = "prove that every group of order 15 is cyclic"
LIVE = "weather in Oslo tomorrow"
UNCLEAR = "flurb gnozzle wex qanto brindlemop trask velluni"
DOORS = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/responses": lambda text: {"input": text},
    "/v1/messages": lambda text: {"max_tokens": 9, "messages": [{"role": "user", "content": text}], "model": "auto"},
    "/v1/messages/count_tokens": lambda text: {"messages": [{"role": "user", "content": text}], "model": "auto"},
    "/v1/completions": lambda text: {"prompt": text},
    "/v1/embeddings": lambda text: {"input": text},
    "/v1/route": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/api/chat": lambda text: {"model": "auto", "messages": [{"role": "user", "content": text}]},
    "/api/generate": lambda text: {"model": "auto", "prompt": text},
    "/api/embed": lambda text: {"model": "auto", "input": text},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("local-only")
    catalogue = folder / "catalogue.toml"
    catalogue.write_text('[doors]\naudio = "xai"\nrerank = "primary"\n')
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "CATALOGUE_FILE": str(catalogue),
            "SHADOW_SHARE": "1",
            "BACKOFF_S": "0.02",
            "BREAKER_FAILURES": "1000",
            "QUEUE_BUDGET_S": "1",
            "VIRTUAL_KEYS": "on",
            "AI_ROUTER_API_KEYS": OWNER,
            "DATABASE_URL": f"sqlite:///{folder / 'router.db'}",
        }
        with running_router(folder, **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            yield Lab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.reset()
    return shared


def ask(
    router: RunningRouter, path: str, body: Mapping[str, Any], headers: Mapping[str, str] = LOCAL_ONLY, key: str = OWNER
) -> tuple[int, dict[str, str], bytes]:
    connection = router.connection()
    try:
        sent = {"content-type": "application/json", "authorization": f"Bearer {key}", **headers}
        connection.request("POST", path, orjson.dumps(body), sent)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def chat(lab: Lab, text: str, *, key: str = OWNER, headers: Mapping[str, str] = LOCAL_ONLY, **fields: Any) -> Any:
    return ask(lab.router, CHAT, {"messages": [{"role": "user", "content": text}], **fields}, headers, key)


def assert_nothing_left(lab: Lab) -> None:
    """Neither a cloud nor the classifier was asked, except for lists of models."""
    assert not [request.path for request in (*lab.xai.requests, *lab.classifier.requests) if request.method == "POST"]


def shadowed(lab: Lab, count: int) -> None:
    """The classifier is asked afterwards about so many decisions, of which none was of a local-only request."""
    assert eventually(lambda: len(lab.classifier.calls(CHAT)) >= count)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("text", [HARD, LIVE, UNCLEAR], ids=["COMPLEX", "ENRICH", "unclear"])
@pytest.mark.parametrize("door", DOORS)
def test_whatever_is_asked_by_whatever_door_stays(lab: Lab, door: str, text: str, stream: bool) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    status, _, body = ask(lab.router, door, {**DOORS[door](anew(text)), "stream": stream})
    assert status == 200, body
    assert_nothing_left(lab)


def test_without_it_they_would_leave(lab: Lab) -> None:
    assert chat(lab, anew(HARD), headers={})[1]["x-router-route"] == "xai"
    assert chat(lab, anew(LIVE), headers={})[1]["x-router-route"] == "enrich"
    assert len(lab.xai.requests) >= 2
    shadowed(lab, 2)


def test_the_answer_says_who_decided_and_why(lab: Lab) -> None:
    _, headers, _ = chat(lab, anew(HARD))
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("primary", "policy")
    assert headers["x-router-reason"] == "local-only: x-router-policy asks for it"
    assert headers["x-router-confidence"] == "unknown"
    assert headers["x-router-speculation"] == "skipped"
    assert lab.router.session(headers["x-session-id"])["private"] is True


@pytest.mark.parametrize(
    "failure",
    [Slam(), Plain({"error": "boom"}, status=500), Plain({"error": "full"}, status=503), Plain({}, status=429)],
    ids=["gone", "500", "503", "429"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_if_the_primary_cannot_it_is_an_error_and_nobody_stands_in(lab: Lab, failure: Reply, stream: bool) -> None:
    lab.primary.on(CHAT, failure)
    status, _, body = chat(lab, anew(HARD), stream=stream)
    assert status >= 429 or b'"error"' in body, body
    assert_nothing_left(lab)


def test_nor_where_its_stream_breaks_off(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="reset"))
    _, _, body = chat(lab, anew(HARD), stream=True)
    assert b'"error"' in body
    assert b"[DONE]" not in body
    assert_nothing_left(lab)


@pytest.mark.parametrize("model", ["xai", "enrich", "xai/grok-4.7"])
def test_who_names_what_is_not_local_is_told_so(lab: Lab, model: str) -> None:
    status, _, body = chat(lab, "hello", model=model)
    error = orjson.loads(body)["error"]
    assert (status, error["code"], error["param"]) == (403, "not_local", "model")
    assert_nothing_left(lab)
    assert not lab.primary.calls(CHAT)


def test_who_wants_a_web_search_is_told_which_field_said_so(lab: Lab) -> None:
    body = {"input": "hello", "tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}
    status, _, answer = ask(lab.router, "/v1/responses", body)
    error = orjson.loads(answer)["error"]
    assert (status, error["param"]) == (403, "tool_choice")
    assert "a web search is not local" in error["message"]
    assert_nothing_left(lab)


def test_a_provider_that_gets_what_is_passed_on_has_to_be_local(lab: Lab) -> None:
    status, _, body = ask(lab.router, "/v1/audio/speech", {"input": "hello"})
    assert (status, orjson.loads(body)["error"]["code"]) == (403, "not_local")
    lab.primary.on("/v1/rerank", Plain({"results": []}))
    assert ask(lab.router, "/v1/rerank", {"query": "hello"})[0] == 200
    assert_nothing_left(lab)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"input": "cut \ud83d", "metadata": {"router_policy": "local-only"}}',
        b'\xef\xbb\xbf{"input": "hello", "metadata": {"router_policy": "local-only"}}',
        b'{"input": NaN, "metadata": {"router_policy": "local-only"}}',
        b"[" * 2000,
        '{"input": "hello", "metadata": {"router_policy": "local-only"}}'.encode("utf-16"),
    ],
    ids=["half a surrogate pair", "a byte order mark", "NaN", "nested", "UTF-16"],
)
def test_what_is_passed_on_and_cannot_be_read_is_refused(lab: Lab, body: bytes) -> None:
    connection = lab.router.connection()
    sent = {"content-type": "application/json", "authorization": f"Bearer {OWNER}"}
    connection.request("POST", "/v1/audio/speech", body, sent)
    response = connection.getresponse()
    assert (response.status, orjson.loads(response.read())["error"]["code"]) == (400, "invalid_json")
    connection.close()
    assert not lab.xai.requests


def test_an_empty_body_is_passed_on(lab: Lab) -> None:
    connection = lab.router.connection()
    sent = {"content-type": "application/json", "authorization": f"Bearer {OWNER}"}
    lab.primary.on("/v1/rerank", Plain({"results": []}))
    connection.request("POST", "/v1/rerank", b"", sent)
    assert connection.getresponse().status == 200
    connection.close()


def test_that_a_local_only_answer_was_good_does_not_say_what_its_request_needed(lab: Lab) -> None:
    request_id = chat(lab, anew(HARD))[1]["x-request-id"]
    status, _, body = ask(lab.router, "/v1/feedback", {"request_id": request_id, "verdict": "good"})
    assert (status, orjson.loads(body)["example"]) == (201, False)


def test_a_background_job_and_a_tool_loop_in_circles_stay_as_well(lab: Lab) -> None:
    job = {**LOCAL_ONLY, "x-task": "title_generation"}
    assert chat(lab, anew("a title, please"), headers=job)[1]["x-router-route"] == "meta"
    messages: list[dict[str, Any]] = [{"role": "user", "content": anew(HARD)}]
    for number in range(6):
        call = {"id": f"c{number}", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
        messages += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        messages += [{"role": "tool", "tool_call_id": f"c{number}", "content": "nothing"}]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    assert ask(lab.router, CHAT, {"messages": messages, "tools": tools})[0] == 200
    assert_nothing_left(lab)


def test_a_threads_messages_stay(lab: Lab) -> None:
    _, _, made = ask(lab.router, "/api/threads", {})
    thread = orjson.loads(made)["id"]
    for path in ("messages", "messages/stream"):
        status, _, body = ask(lab.router, f"/api/threads/{thread}/{path}", {"content": anew(HARD)})
        assert status in (200, 201), body
        assert b'"policy"' in body
    assert_nothing_left(lab)


def test_what_follows_a_local_only_turn_of_a_thread_stays_as_well(lab: Lab) -> None:
    thread = orjson.loads(ask(lab.router, "/api/threads", {})[2])["id"]
    path = f"/api/threads/{thread}/messages"
    assert ask(lab.router, path, {"content": "something private"})[0] == 201
    status, _, body = ask(lab.router, path, {"content": anew(HARD)}, {})
    assert (status, orjson.loads(body)["details"]["decided_by"]) == (201, "policy")
    _, _, body = ask(lab.router, path, {"content": "go on", "model": "xai"}, {})
    assert orjson.loads(body)["error"]["code"] == "not_local"
    assert_nothing_left(lab)


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_what_is_kept_in_a_thread_under_that_policy_stays_whoever_said_it(lab: Lab, role: str) -> None:
    path = f"/api/threads/{orjson.loads(ask(lab.router, '/api/threads', {})[2])['id']}/messages"
    kept = {"content": "something private", "role": role}
    assert ask(lab.router, path, kept, {"x-router-policy": "locl-only"})[0] == 400
    assert ask(lab.router, path, kept)[0] == 201
    status, _, body = ask(lab.router, path, {"content": anew(HARD)}, {})
    assert (status, orjson.loads(body)["details"]["decided_by"]) == (201, "policy")
    assert_nothing_left(lab)


def test_what_follows_a_local_only_answer_by_its_id_stays_as_well(lab: Lab) -> None:
    _, _, first = ask(lab.router, "/v1/responses", {"input": "something private"})
    after = {"previous_response_id": orjson.loads(first)["id"]}
    status, headers, second = ask(lab.router, "/v1/responses", {**after, "input": anew(HARD)}, {})
    assert (status, headers["x-router-decided-by"]) == (200, "policy")
    after = {"previous_response_id": orjson.loads(second)["id"]}
    assert ask(lab.router, "/v1/responses", {**after, "input": "thanks", "model": "xai"}, {})[0] == 403
    assert_nothing_left(lab)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/audio/speech", "/api/embed", "/api/embeddings", "/v1/embeddings"])
def test_the_body_can_ask_for_it_at_every_door(lab: Lab, path: str) -> None:
    body = {"query": "q", "input": "q", "prompt": "q", "metadata": {"router_policy": "lokal"}}
    status, _, answer = ask(lab.router, path, body, {})
    assert (status, b"router_policy" in answer) == (400, True)
    if path == "/v1/audio/speech":
        assert ask(lab.router, path, {**body, "metadata": {"router_policy": "local-only"}}, {})[0] == 403
    assert_nothing_left(lab)


def test_the_body_can_ask_for_it_where_headers_cannot_be_set(lab: Lab) -> None:
    _, headers, _ = chat(lab, anew(HARD), headers={}, metadata={"router_policy": "local-only"})
    assert headers["x-router-reason"] == "local-only: metadata.router_policy asks for it"
    assert_nothing_left(lab)


@pytest.mark.parametrize(
    ("headers", "fields", "param"),
    [
        ({"x-router-policy": "local"}, {}, "x-router-policy"),
        ({"x-router-policy": "local-only, xai"}, {}, "x-router-policy"),
        ({}, {"metadata": {"router_policy": "lokal-only"}}, "metadata.router_policy"),
        ({}, {"metadata": {"router_policy": True}}, "metadata.router_policy"),
        ({}, {"metadata": {"Router-Policy": "local"}}, "metadata.router_policy"),
        ({}, {"metadata": [{"router_policy": "local-only"}]}, "metadata"),
        ({}, {"metadata": '{"router_policy": "local-only"}'}, "metadata"),
        ({"x-router-policy": ""}, {}, "x-router-policy"),
    ],
)
def test_a_policy_that_is_misspelt_is_not_taken_for_none(
    lab: Lab, headers: Mapping[str, str], fields: Mapping[str, Any], param: str
) -> None:
    status, _, body = chat(lab, anew(HARD), headers=headers, **fields)
    assert (status, orjson.loads(body)["error"]["param"]) == (400, param)
    assert_nothing_left(lab)
    assert not lab.primary.calls(CHAT)


def test_a_key_can_be_for_local_models_only(lab: Lab, shared: Lab) -> None:
    database = f"sqlite:///{shared.router.data.parent / 'router.db'}"
    _, secret = new_key(database, "--local-only")
    assert eventually(lambda: chat(lab, "hello", headers={}, key=secret)[0] == 200)
    _, headers, _ = chat(lab, anew(HARD), headers={}, key=secret)
    assert headers["x-router-reason"] == "local-only: its key is for local models only"
    assert_nothing_left(lab)


def test_a_dry_run_says_so(lab: Lab) -> None:
    _, _, body = ask(lab.router, "/v1/route", {"messages": [{"role": "user", "content": HARD}]})
    told = orjson.loads(body)
    assert (told["route"], told["decided_by"], told["leaves"]) == ("primary", "policy", False)
    assert [each["backend"] for each in told["would_ask"]] == ["primary"]


def test_what_was_kept_home_is_counted(lab: Lab) -> None:
    def kept_home() -> int:
        connection = lab.router.connection()
        try:
            connection.request("GET", "/api/usage", headers={"authorization": f"Bearer {OWNER}"})
            return orjson.loads(connection.getresponse().read())["total"]["kept_home"]
        finally:
            connection.close()

    before = kept_home()
    lab.primary.on(CHAT, says("hi"))
    chat(lab, anew(HARD))
    chat(lab, "hello", headers={})
    assert kept_home() == before + 1
    shadowed(lab, 1)


def test_another_local_backend_of_a_chain_is_asked_where_the_head_thinks_so(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.toml"
    with fake_upstream() as primary, fake_upstream() as big, fake_upstream() as xai:
        well_behaved(xai, primary, xai)
        big.on(CHAT, says("from the big one"))
        catalogue.write_text(
            f'[providers.attic]\nbase_url = "{big.url}"\nlocal = true\ndefault_model = "big"\n'
            '[chains]\ncomplex = ["xai", "attic", "primary"]\n'
        )
        settings = {"PRIMARY_URL": primary.url, "XAI_API_URL": xai.url, "XAI_API_KEY": XAI_KEY}
        with running_router(tmp_path, CATALOGUE_FILE=str(catalogue), **settings) as router:
            body = {"messages": [{"role": "user", "content": HARD}]}
            status, headers, _ = ask(router, CHAT, body)
            assert (status, headers["x-router-route"]) == (200, "attic")
            assert ask(router, CHAT, {"messages": [{"role": "user", "content": "hello"}]})[1]["x-router-route"] == (
                "primary"
            )
        assert not [request for request in xai.requests if request.method == "POST"]
