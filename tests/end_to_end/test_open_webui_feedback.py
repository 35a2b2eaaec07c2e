"""The filter for Open WebUI (examples/): thumbs of a chat reach the router. Open WebUI itself is not here."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ai_router.cli.feedback_examples import DISLIKED, LIKED, feedback_examples
from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream

FILTER = Path(__file__).parents[2] / "examples/open_webui_feedback.py"
TITLE_JOB = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
    '### Output:\nJSON format: { "title": "your concise title here" }\n### Chat History:\n<chat_history>\nUSER: hi\n'
    "</chat_history>"
)


class Chat:
    """A chat as Open WebUI's models give it."""

    def __init__(self, messages: dict[str, Any]) -> None:
        self.chat = {"history": {"messages": messages}}


@pytest.fixture
def chats(monkeypatch: pytest.MonkeyPatch) -> dict[str, Chat]:
    """By their ids; what the filter imports finds them."""
    stored: dict[str, Chat] = {}

    class Chats:
        @staticmethod
        async def get_chat_by_id(chat_id: str) -> Chat | None:
            return stored.get(chat_id)

    module = types.ModuleType("open_webui.models.chats")
    module.Chats = Chats  # type: ignore[attr-defined]
    for name in ("open_webui", "open_webui.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "open_webui.models.chats", module)
    return stored


@pytest.fixture
def router(tmp_path: Path, upstream: FakeUpstream) -> Iterator[RunningRouter]:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as running:
        yield running


def filter_for(url: str) -> Any:
    spec = importlib.util.spec_from_file_location("open_webui_feedback", FILTER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Filter()
    made.valves.router_url = url
    return made


def inlet(made: Any, chat_id: str | None) -> None:
    body = {"messages": [{"role": "user", "content": "next"}]}
    assert asyncio.run(made.inlet(body, __metadata__={"chat_id": chat_id})) == body


def test_thumbs_become_examples_although_a_title_was_made_with_the_same_id(
    router: RunningRouter, chats: dict[str, Chat]
) -> None:
    for message_id, text in (("m-1", "what is a monad"), ("m-2", "what is a functor")):
        assert router.chat(text, headers={"x-request-id": message_id})[0] == 200
        assert router.chat(TITLE_JOB, headers={"x-request-id": message_id})[1]["x-router-route"] == "meta"
    chats["c"] = Chat(
        {
            "u-1": {"role": "user"},
            "m-1": {"role": "assistant", "annotation": {"rating": 1}},
            "m-2": {"role": "assistant", "annotation": {"rating": -1}},
            "m-3": {"role": "assistant", "annotation": None},
        }
    )
    made = filter_for(router.url)
    inlet(made, "c")
    inlet(made, "c")
    found = feedback_examples(f"sqlite:///{router.data / 'usage.db'}")
    assert [(example.source, example.label) for example in found] == [(LIKED, "MODERATE"), (DISLIKED, "COMPLEX")]
    assert [example.messages[-1]["content"] for example in found] == ["what is a monad", "what is a functor"]


def test_a_thumb_that_is_changed_is_told_again(router: RunningRouter, chats: dict[str, Chat]) -> None:
    assert router.chat("what is a monad", headers={"x-request-id": "m-1"})[0] == 200
    made = filter_for(router.url)
    for rating in (1, -1):
        chats["c"] = Chat({"m-1": {"role": "assistant", "annotation": {"rating": rating}}})
        inlet(made, "c")
    (example,) = feedback_examples(f"sqlite:///{router.data / 'usage.db'}")
    assert example.source == DISLIKED


@pytest.mark.parametrize("chat_id", [None, "nobody's", "c"])
def test_the_chat_goes_on_whatever_becomes_of_the_thumb(chats: dict[str, Chat], chat_id: str | None) -> None:
    chats["c"] = Chat({"m-1": {"role": "assistant", "annotation": {"rating": 1}}})
    inlet(filter_for("http://127.0.0.1:9"), chat_id)
