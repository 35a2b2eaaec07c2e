"""POST /v1/feedback: what people say of a decision becomes an example."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.cli.feedback_examples import feedback_examples
from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream


def tell(router: RunningRouter, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, dict[str, Any]]:
    connection = router.connection()
    try:
        connection.request("POST", "/v1/feedback", orjson.dumps(fields), headers or {})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


@pytest.fixture
def router(tmp_path: Path, upstream: FakeUpstream) -> Iterator[RunningRouter]:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as running:
        yield running


@pytest.mark.parametrize(
    "said",
    [
        {"verdict": "should_be: COMPLEX"},
        {"should_be": "complex"},
        {"verdict": {"should_be": "COMPLEX"}},
        {"verdict": "should_be", "should_be": "COMPLEX"},
    ],
)
def test_what_a_request_should_have_been_is_an_example_for_learn(router: RunningRouter, said: dict[str, Any]) -> None:
    request_id = router.chat("Prove that there are infinitely many primes.")[1]["x-request-id"]
    status, answer = tell(router, request_id=request_id, **said)
    assert (status, answer["verdict"], answer["label"], answer["example"]) == (201, "should_be", "COMPLEX", True)
    (example,) = feedback_examples(f"sqlite:///{router.data / 'usage.db'}")
    assert (example.label, example.messages[-1]["content"]) == (
        "COMPLEX",
        "Prove that there are infinitely many primes.",
    )


def test_good_confirms_the_decision_and_bad_says_only_that(router: RunningRouter) -> None:
    request_id = router.chat("What is the capital of France?")[1]["x-request-id"]
    assert tell(router, request_id=request_id, verdict="good")[1]["label"] == "MODERATE"
    assert tell(router, request_id=request_id, verdict="bad")[1]["example"] is False
    named = router.chat(model="primary")[1]["x-request-id"]
    answer = tell(router, request_id=named, verdict="good")[1]
    assert (answer["decided"], answer["example"]) == ("EXPLICIT", False)


def test_of_several_requests_of_one_id_the_newest_is_meant(router: RunningRouter) -> None:
    for text in ("first", "second"):
        router.chat(text, headers={"x-request-id": "mine"})
    tell(router, request_id="mine", should_be="ENRICH")
    (example,) = feedback_examples(f"sqlite:///{router.data / 'usage.db'}")
    assert example.messages[-1]["content"] == "second"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"verdict": "good"}, "request_id"),
        ({"request_id": "r"}, "verdict"),
        ({"request_id": "r", "verdict": "fine"}, "verdict"),
        ({"request_id": "r", "should_be": "META"}, "should_be"),
        ({"request_id": "r", "verdict": {}}, "should_be"),
    ],
)
def test_bad_input_names_the_field(router: RunningRouter, said: dict[str, Any], param: str) -> None:
    status, answer = tell(router, **said)
    assert (status, answer["error"]["param"]) == (400, param)


def test_a_request_that_is_not_known_is_404(router: RunningRouter) -> None:
    assert tell(router, request_id="never", verdict="good")[0] == 404


@pytest.mark.parametrize("bodies", ["redacted", "off"])
def test_without_text_there_is_nothing_to_learn(tmp_path: Path, upstream: FakeUpstream, bodies: str) -> None:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, SESSION_BODIES=bodies) as router:
        request_id = router.chat()[1]["x-request-id"]
        status, answer = tell(router, request_id=request_id, verdict="good")
        assert (status, answer["error"]["code"]) == (409, "no_text_kept")


def test_a_key_speaks_of_its_own_requests_and_the_admin_of_all(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("hi"))
    keys = {"AI_ROUTER_API_KEYS": "first-key,second-key", "AI_ROUTER_ADMIN_KEY": "admin-key"}

    def of(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    with running_router(tmp_path, PRIMARY_URL=upstream.url, **keys) as router:
        request_id = router.chat(headers=of("first-key"))[1]["x-request-id"]
        assert tell(router, of("second-key"), request_id=request_id, verdict="good")[0] == 404
        assert tell(router, of("first-key"), request_id=request_id, verdict="good")[0] == 201
        assert tell(router, of("admin-key"), request_id=request_id, verdict="good")[0] == 201
        assert tell(router, request_id=request_id, verdict="good")[0] == 401
