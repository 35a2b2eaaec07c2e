"""POST /v1/route: the decision without the request, and without a trace of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, Lab
from tests.fakes.personas import CHAT, classifies
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain


def dry_run(router: RunningRouter, text: str = "hello", **fields: Any) -> dict[str, Any]:
    return dry_run_of(router, {"messages": [{"role": "user", "content": text}], **fields})


def dry_run_of(router: RunningRouter, body: dict[str, Any]) -> dict[str, Any]:
    connection = router.connection()
    try:
        connection.request("POST", "/v1/route", orjson.dumps(body))
        response = connection.getresponse()
        answer: dict[str, Any] = orjson.loads(response.read())
        assert response.status == 200, answer
        return answer
    finally:
        connection.close()


@pytest.fixture
def router(tmp_path: Any, upstream: FakeUpstream) -> Any:
    settings = {"PRIMARY_URL": upstream.url, "XAI_API_URL": upstream.url, "XAI_API_KEY": XAI_KEY}
    upstream.on("/v1/models", Plain({"data": []}))
    with running_router(tmp_path, **settings) as running:
        yield running


def test_it_tells_the_decision_who_would_be_asked_and_what_would_leave(router: RunningRouter) -> None:
    found = dry_run(router, "What is the capital of France?")
    assert (found["label"], found["route"], found["decided_by"]) == ("MODERATE", "primary", "fast")
    assert 0.5 < found["confidence"] <= 1.0
    assert found["runner_up"]["label"] in ("COMPLEX", "ENRICH")
    assert found["runner_up"]["confidence"] < found["confidence"]
    assert "asked 'What is the capital of France?'" in found["ask"]
    assert [(asked["backend"], asked["for"]) for asked in found["would_ask"]] == [
        ("primary", "answer"),
        ("xai", "fallback"),
    ]
    assert (found["leaves"], found["cost_usd"]) == (False, 0.0)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "auto:latest", "messages": [{"role": "user", "content": "What is the capital of France?"}]},
        {"model": "auto", "prompt": "What is the capital of France?", "options": {"num_predict": 9}},
    ],
    ids=["chat", "generate"],
)
def test_ollamas_bodies_are_told_likewise(router: RunningRouter, body: dict[str, Any]) -> None:
    assert dry_run_of(router, body)["route"] == "primary"


def test_a_servers_model_with_a_tag_is_no_sign_of_ollamas_api(tmp_path: Any, upstream: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=upstream.url, PRIMARY_MODEL="llama3:latest") as router:
        parts = [{"type": "text", "text": "What is the capital of France?"}]
        body = {"model": "llama3:latest", "messages": [{"role": "user", "content": parts}]}
        assert dry_run_of(router, body)["would_ask"][0]["model"] == "llama3:latest"


@pytest.mark.parametrize(
    ("model", "asked", "leaves", "costs"),
    [
        ("xai", [("xai", "answer"), ("primary", "fallback")], True, True),
        ("enrich", [("xai", "search"), ("primary", "answer"), ("xai", "fallback")], True, False),
        ("primary", [("primary", "answer")], False, True),
    ],
)
def test_a_named_route_is_told_likewise(
    router: RunningRouter, model: str, asked: list[tuple[str, str]], leaves: bool, costs: bool
) -> None:
    found = dry_run(router, model=model, max_tokens=100)
    assert [(one["backend"], one["for"]) for one in found["would_ask"]] == asked
    assert (found["decided_by"], found["runner_up"], found["leaves"]) == ("explicit", None, leaves)
    assert (found["cost_usd"] is not None) == costs


def test_it_changes_nothing_and_no_backend_hears_of_it(router: RunningRouter, upstream: FakeUpstream) -> None:
    def pages() -> list[bytes]:
        metrics = router.get("/metrics")[2].splitlines()
        names = (b"ai_router_decisions", b"ai_router_head_", b"ai_router_decision_cache", b"ai_router_requests_total")
        return [line for line in metrics if line.startswith(names)]

    router.get("/health")
    before = pages()
    for text in ("hello", "prove it", "and then?"):
        dry_run(router, text)
    assert pages() == before
    assert not upstream.calls(CHAT)
    assert router.get("/api/sessions")[2].startswith(b'{"object":"list","data":[]')


def test_the_classifier_is_asked_each_time_and_its_answer_is_not_kept(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX", probability=0.8))
    found = [dry_run(lab.router, "prove it") for _ in range(2)]
    assert [(one["label"], one["decided_by"], one["confidence"]) for one in found] == [
        ("COMPLEX", "classifier", 0.8)
    ] * 2
    assert len(lab.classifier.calls(CHAT)) == 2


def test_bad_input_and_unknown_models_are_errors_as_everywhere(router: RunningRouter) -> None:
    for body, status, param in ((b"{", 400, "body"), (b"{}", 400, "messages")):
        connection = router.connection()
        connection.request("POST", "/v1/route", body)
        response = connection.getresponse()
        assert (response.status, orjson.loads(response.read())["error"]["param"]) == (status, param)
        connection.close()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"messages": [{"role": "user", "content": "{}"}]}, {}),
        ({"input": "{}"}, {}),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "{}"}]}], "instructions": "Short."},
            {},
        ),
        ({"prompt": "{}"}, {}),
        ({"system": "Be short.", "messages": [{"role": "user", "content": "{}"}]}, {}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "{}"}]}]},
            {"anthropic-version": "2023-06-01"},
        ),
    ],
    ids=["chat", "responses", "responses items", "completions", "messages", "messages by its header"],
)
def test_a_body_of_any_api_is_decided_as_it_would_be(
    router: RunningRouter, body: dict[str, Any], headers: dict[str, str]
) -> None:
    for text, route in (("weather in Oslo tomorrow", "enrich"), ("prove that sqrt(2) is irrational", "xai")):
        filled = orjson.loads(orjson.dumps(body).replace(b"{}", text.encode()))
        status, _, answer = router._exchange("POST", "/v1/route", orjson.dumps(filled), headers)
        assert status == 200, answer
        assert orjson.loads(answer)["route"] == route


def test_a_body_of_no_api_is_refused_by_what_it_lacks(router: RunningRouter) -> None:
    status, _, answer = router._exchange("POST", "/v1/route", b'{"model": "auto"}', None)
    assert (status, orjson.loads(answer)["error"]["param"]) == (400, "messages")


def test_an_editors_completion_is_told_to_stay(router: RunningRouter) -> None:
    body = orjson.dumps({"prompt": "def f(", "suffix": "return 1"})
    told = orjson.loads(router._exchange("POST", "/v1/route", body, None)[2])
    assert (told["route"], told["decided_by"], told["leaves"]) == ("meta", "meta", False)
