"""META_URL: a chat UI's own jobs go to a server of their own, and the primary stands in for that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from ai_router.config_loading import load_settings
from ai_router.providers.building import build_registry
from tests.end_to_end.test_open_webui_feedback import TITLE_JOB
from tests.fakes.personas import CHAT, anew, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, fake_upstream


class Lab:
    """A primary, a small server, and a router before them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.primary: FakeUpstream = stack.enter_context(fake_upstream())
        self.small: FakeUpstream = stack.enter_context(fake_upstream())
        self.primary.on(CHAT, says("from the primary"))
        self.small.on(CHAT, says("A title"))
        meta = {"META_URL": self.small.url, "META_MODEL": "tiny", "PRIMARY_SLOTS": "1", "BACKOFF_S": "0.02"}
        self.router: RunningRouter = stack.enter_context(running_router(folder, PRIMARY_URL=self.primary.url, **meta))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


def test_a_title_goes_there_and_an_answer_to_the_primary(lab: Lab) -> None:
    _, headers, body = lab.router.chat(TITLE_JOB)
    assert (headers["x-router-route"], headers["x-router-model"]) == ("meta", "tiny")
    assert b"A title" in body
    assert lab.small.calls(CHAT)[-1].body["model"] == "tiny"
    assert not lab.primary.calls(CHAT)
    assert b"from the primary" in lab.router.chat(anew())[2]
    health = orjson.loads(lab.router.get("/health")[2])
    assert set(health["backends"]) == {"primary", "meta"}


def test_it_does_not_wait_for_a_busy_primary(lab: Lab) -> None:
    lab.primary.on(CHAT, Hang())
    waiting = threading.Thread(target=lambda: lab.router.chat(anew(), model="primary"), daemon=True)
    waiting.start()
    assert lab.primary.wait_for(CHAT)
    assert b"A title" in lab.router.chat(TITLE_JOB)[2]


@pytest.mark.parametrize("broken", [Plain({"error": "boom"}, status=500), Plain({"error": "busy"}, status=429)])
def test_the_primary_stands_in(lab: Lab, broken: Plain) -> None:
    lab.small.on(CHAT, broken)
    status, _, body = lab.router.chat(TITLE_JOB)
    assert (status, b"from the primary" in body) == (200, True)


def test_a_local_only_title_may_go_there(lab: Lab) -> None:
    policy = {"x-router-policy": "local-only"}
    assert b"A title" in lab.router.chat(TITLE_JOB, headers=policy)[2]
    headers = lab.router.chat(anew("prove it"), headers=policy)[1]
    assert headers["x-router-reason"] == "local-only: x-router-policy asks for it"


def test_without_a_model_it_is_asked_for_the_primarys() -> None:
    settings = load_settings({"PRIMARY_URL": "http://gpu", "META_URL": "http://small"}, dotenv=None)
    first = build_registry(settings).chains["meta"][0]
    assert (first.backend.base_url, first.model) == ("http://small", settings.primary_model)
