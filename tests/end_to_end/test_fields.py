"""What clients are told of fields that did not reach a backend as they came, and of a route that has no key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Lab
from tests.fakes.personas import CHAT, DONE, chunk, says
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Recorded, Reply, Stream

TOO_LARGE = (
    "'max_tokens' or 'max_completion_tokens' is too large: 8202. This model's maximum context length is 8192 tokens"
)


def with_room(most: int, answer: Callable[[Recorded], Reply]) -> Callable[[Recorded], Reply]:
    """A vLLM whose context leaves room for ``most`` tokens."""

    def reply(request: Recorded) -> Reply:
        if request.body.get("max_tokens", 0) <= most:
            return answer(request)
        return Plain({"error": {"message": TOO_LARGE, "type": "BadRequestError", "code": 400}}, status=400)

    return reply


@pytest.mark.parametrize("stream", [False, True])
def test_a_primary_gets_room_to_think_until_it_is_known_not_to(
    tmp_path: Path, upstream: FakeUpstream, stream: bool
) -> None:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        _, headers, _ = router.chat(model="primary", stream=stream, max_tokens=10)
        assert headers["x-router-warning"] == "primary: max_tokens raised by 8192 for thinking"
        assert upstream.calls(CHAT)[-1].body["max_tokens"] == 8202
        router.session(headers["x-session-id"])
        _, headers, _ = router.chat(model="primary", stream=stream, max_tokens=10)
        assert "x-router-warning" not in headers
        assert upstream.calls(CHAT)[-1].body["max_tokens"] == 10


def test_a_primary_that_thinks_keeps_its_room(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"reasoning": "hm"}), chunk({"content": "hi"}, "stop"), DONE]))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, PRIMARY_THINKING_TOKENS="100") as router:
        for _ in range(3):
            _, headers, _ = router.chat(model="primary", stream=True, max_tokens=10)
            router.session(headers["x-session-id"])
        assert [call.body["max_tokens"] for call in upstream.calls(CHAT)] == [110] * 3


@pytest.mark.parametrize("stream", [False, True])
def test_where_a_prompt_leaves_no_room_to_think_the_limit_is_sent_as_it_came(
    tmp_path: Path, upstream: FakeUpstream, stream: bool
) -> None:
    upstream.on(CHAT, with_room(100, says("hi")))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        status, headers, body = router.chat(model="primary", stream=stream, max_tokens=10)
        assert (status, b"hi" in body) == (200, True)
        assert "x-router-warning" not in headers
        assert [call.body["max_tokens"] for call in upstream.calls(CHAT)] == [8202, 10]
        status, _, body = router.chat(model="primary", stream=stream, max_tokens=1000)
        assert (status, b"too large" in body) == (400, True), "it does not fit as it came, either"


def test_a_speculative_call_that_had_no_room_is_made_anew(lab: Lab) -> None:
    lab.primary.on(CHAT, with_room(100, says("hi")))
    status, _, body = lab.router.chat(max_tokens=10)
    assert (status, b"hi" in body) == (200, True)
    assert eventually(lambda: [call.body["max_tokens"] for call in lab.primary.calls(CHAT)][-1] == 10)


def test_a_cloud_is_not_sent_a_server_s_fields_and_the_client_is_told(lab: Lab) -> None:
    _, headers, _ = lab.router.chat(model="xai", stop=["x"], guided_json={}, think=True, brand_new=1)
    assert headers["x-router-warning"] == "xai is not sent stop, guided_json, think"
    body = lab.xai.calls(CHAT)[-1].body
    assert body["brand_new"] == 1
    assert not {"stop", "guided_json", "think"} & set(body)
    _, headers, _ = lab.router.chat(model="primary", stop=["x"], guided_json={}, think=True)
    assert "x-router-warning" not in headers
    assert lab.primary.calls(CHAT)[-1].body["guided_json"] == {}


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("xai", "XAI_API_KEY"),
        ("enrich", "XAI_API_KEY or PERPLEXITY_API_KEY or OPENROUTER_API_KEY or SEARXNG_URL"),
        ("auto", None),
    ],
)
def test_a_route_that_was_named_and_has_no_key_says_so(
    tmp_path: Path, upstream: FakeUpstream, model: str, key: str | None
) -> None:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        status, headers, _ = router.chat(model=model)
        told = f"{model} needs {key}; the primary stands in" if key else None
        assert (status, headers["x-router-route"], headers.get("x-router-warning")) == (200, "primary", told)
        assert (told or "") in headers["x-router-reason"]
