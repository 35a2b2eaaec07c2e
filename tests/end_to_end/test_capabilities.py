"""What a model cannot take goes to one that can, or is refused by the name of the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY
from tests.fakes.personas import CHAT, anew, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
PROPS = {"chat_template_caps": {"supports_tools": False}, "modalities": {"vision": False}}
MODELS = {"data": [{"id": "m.gguf", "owned_by": "llamacpp", "meta": {"n_ctx": 4096}}]}


@pytest.fixture(scope="module")
def primary() -> Iterator[FakeUpstream]:
    """A llama.cpp that says what it cannot do."""
    with fake_upstream() as fake:
        fake.on(CHAT, says("from ", "home"))
        fake.on("/v1/models", Plain(MODELS))
        fake.on("/props", Plain(PROPS))
        yield fake


@pytest.fixture(scope="module")
def xai() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on(CHAT, says("from ", "xai"))
        yield fake


@pytest.fixture(scope="module", params=["on", "off"])
def place(
    request: pytest.FixtureRequest, primary: FakeUpstream, xai: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[bool, RunningRouter]]:
    """Whether the cloud may answer, and a router that knows its primary."""
    settings = {"PRIMARY_URL": primary.url, "XAI_API_URL": xai.url, "XAI_API_KEY": XAI_KEY}
    with running_router(tmp_path_factory.mktemp("can"), CLOUD_FALLBACK=request.param, **settings) as router:
        assert eventually(lambda: listed(router)["auto"].get("max_model_len") == 4096)
        yield request.param == "on", router


def listed(router: RunningRouter) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in orjson.loads(router.get("/v1/models")[2])["data"]}


@pytest.mark.parametrize(
    ("content", "fields", "why", "param"),
    [
        ([{"type": "text", "text": "what is this?"}, IMAGE], {}, "sees no pictures", "messages"),
        ("hi", {"tools": [TOOL]}, "takes no tools", "tools"),
        ("word " * 6_000, {}, "has room for 4096 tokens", "messages"),
    ],
    ids=["picture", "tools", "context"],
)
def test_it_goes_where_it_can_be_taken_if_that_is_allowed(
    place: tuple[bool, RunningRouter],
    primary: FakeUpstream,
    content: Any,
    fields: dict[str, Any],
    why: str,
    param: str,
) -> None:
    may_leave, router = place
    before = len(primary.calls(CHAT))
    # A background job is for the primary, whatever the head thinks of it.
    status, headers, body = router.chat(content, headers={"x-task": "title_generation"}, **fields)
    assert len(primary.calls(CHAT)) == before
    if may_leave:
        assert (status, headers["x-router-model"]) == (200, "grok-4.7")
        assert why in headers["x-router-reason"]
        return
    error = orjson.loads(body)["error"]
    assert (status, error["param"]) == (400, param)
    assert why in error["message"]
    assert error["code"] == ("context_length_exceeded" if "room" in why else "unsupported_by_model")


def test_whoever_names_the_primary_gets_the_error_and_never_the_cloud(
    place: tuple[bool, RunningRouter], xai: FakeUpstream
) -> None:
    _, router = place
    before = len(xai.calls(CHAT))
    status, _, body = router.chat(anew(), model="primary", tools=[TOOL])
    assert (status, orjson.loads(body)["error"]["param"]) == (400, "tools")
    assert len(xai.calls(CHAT)) == before


def test_an_empty_list_of_tools_is_none(place: tuple[bool, RunningRouter]) -> None:
    _, router = place
    assert router.chat(anew(), model="primary", tools=[])[0] == 200


def test_the_list_of_models_says_what_is_known(place: tuple[bool, RunningRouter]) -> None:
    _, router = place
    models = listed(router)
    assert models["auto"] == {**models["auto"], "max_model_len": 4096, "context_length": 4096}
    assert models["auto"]["capabilities"] == ["reasoning"]
    assert models["xai/grok-4.7"]["context_length"] == 500_000
    assert "vision" in models["xai/grok-4.7"]["capabilities"]


def test_of_a_server_that_says_nothing_nothing_is_assumed(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        assert "max_model_len" not in listed(router)["auto"]
        assert router.chat(anew(), model="primary", tools=[TOOL])[0] == 200
