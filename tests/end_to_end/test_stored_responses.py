"""previous_response_id: what is kept, for whom, and how the conversation is put together again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, fake_upstream

KEYS = {"AI_ROUTER_API_KEYS": "key-one,key-two", "DATE_CONTEXT": "off"}


@pytest.fixture(scope="module")
def primary() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on(CHAT, says("I ", "see"))
        yield fake


@pytest.fixture(scope="module")
def router(primary: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    with running_router(tmp_path_factory.mktemp("kept"), PRIMARY_URL=primary.url, **KEYS) as router:
        yield router


def client(router: RunningRouter, key: str = "key-one") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0)


def sent(primary: FakeUpstream) -> list[Any]:
    return [(message["role"], message["content"]) for message in primary.calls(CHAT)[-1].body["messages"]]


def test_a_turn_goes_on_with_the_one_before(router: RunningRouter, primary: FakeUpstream) -> None:
    with client(router) as sdk:
        first = sdk.responses.create(model="auto", input="one", instructions="be brief")
        with sdk.responses.stream(model="auto", input="two", previous_response_id=first.id) as stream:
            second = stream.get_final_response()
        third = sdk.responses.create(model="auto", input="three", previous_response_id=second.id)
        assert third.previous_response_id == second.id
        answer = ("assistant", "I see")
        # Instructions are those of their own turn only.
        assert sent(primary) == [("user", "one"), answer, ("user", "two"), answer, ("user", "three")]
        assert sdk.responses.retrieve(second.id).output_text == "I see"
        sdk.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(second.id)
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.responses.create(model="auto", input="four", previous_response_id=third.id)
        assert caught.value.code == "response_not_found"


def test_another_key_does_not_know_it(router: RunningRouter) -> None:
    with client(router) as mine, client(router, "key-two") as theirs:
        answer = mine.responses.create(model="auto", input="a secret")
        for look in (
            lambda: theirs.responses.retrieve(answer.id),
            lambda: theirs.responses.delete(answer.id),
            lambda: theirs.responses.create(model="auto", input="and?", previous_response_id=answer.id),
        ):
            with pytest.raises(openai.NotFoundError):
                look()
        assert mine.responses.retrieve(answer.id).id == answer.id


def test_what_is_not_to_be_kept_is_not(router: RunningRouter) -> None:
    with client(router) as sdk:
        answer = sdk.responses.create(model="auto", input="forget this", store=False)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(answer.id)


@pytest.mark.parametrize(("bodies", "survives"), [("full", True), ("redacted", False), ("off", False)])
def test_where_sessions_keep_no_words_it_is_in_memory_only(
    primary: FakeUpstream, tmp_path: Path, bodies: str, survives: bool
) -> None:
    settings = {"PRIMARY_URL": primary.url, "SESSION_BODIES": bodies}
    with running_router(tmp_path, **settings) as router, client(router) as sdk:
        first = sdk.responses.create(model="auto", input="a word that is looked for")
        again = sdk.responses.create(model="auto", input="two", previous_response_id=first.id)
        assert again.output_text == "I see"
        router.stop()
    database = tmp_path / "data" / "usage.db"
    assert (b"a word that is looked for" in database.read_bytes()) == survives
    with running_router(tmp_path, **settings) as router, client(router) as sdk:
        if survives:
            assert sdk.responses.retrieve(first.id).output_text == "I see"
            return
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(first.id)
