"""Where searches come from: a SearXNG of one's own, OpenRouter's ":online", and who is asked first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, SEARCH, anew, finds, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import Hang, Plain, fake_upstream

QUERY = "/search"
ENGINE = {
    "query": "q",
    "results": [{"url": "https://example.org/rain", "title": "Weather", "content": "It rains in Paris."}],
    "answers": [],
}
OWNER = "an-owners-key-of-the-test"


class Lab:
    """A router with an engine of its own, and clouds behind it."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str) -> None:
        self.engine, self.primary, self.xai, self.openrouter = (stack.enter_context(fake_upstream()) for _ in range(4))
        self.engine.on(QUERY, Plain(ENGINE))
        self.primary.on(CHAT, says("from the primary"))
        self.xai.on(SEARCH, finds("xAI has found it."))
        cited = [{"type": "url_citation", "url_citation": {"url": "https://example.org/o"}}]
        message = {"role": "assistant", "content": "OpenRouter has found it.", "annotations": cited}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.021}
        self.openrouter.on(CHAT, Plain({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}))
        urls = {"XAI_API_URL": self.xai.url, "OPENROUTER_API_URL": self.openrouter.url, "SEARXNG_URL": self.engine.url}
        keys = {"XAI_API_KEY": XAI_KEY, "OPENROUTER_API_KEY": "k", "BACKOFF_S": "0.02", "BREAKER_FAILURES": "1000"}
        self.router: RunningRouter = stack.enter_context(
            running_router(folder, **{"PRIMARY_URL": self.primary.url, **urls, **keys, **settings})
        )

    def ask(self, **headers: str) -> dict[str, str]:
        status, answered, body = self.router.chat(anew("rain in Paris?"), model="enrich", headers=headers)
        assert status == 200, body
        return {name.lower(): value for name, value in answered.items()}

    def context(self) -> str:
        """What the primary was shown."""
        return str(self.primary.calls(CHAT)[-1].body["messages"][-1]["content"])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_search_engine_of_ones_own_finds_the_context(tmp_path: Path, stack: ExitStack) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="searxng")
    headers = lab.ask()
    assert headers["x-router-route"] == "enrich"
    assert "It rains in Paris." in lab.context()
    assert "- https://example.org/rain" in lab.context()
    (asked,) = lab.engine.requests
    assert "format=json" in asked.path
    assert "rain+in+Paris" in asked.path
    assert not lab.xai.calls(SEARCH)
    session = lab.router.session(headers["x-session-id"])
    assert session["cost_usd"] == 0.0, "nobody charges for it"


def test_what_openrouter_charges_is_counted(tmp_path: Path, stack: ExitStack) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="openrouter")
    session = lab.router.session(lab.ask()["x-session-id"])
    assert "OpenRouter has found it." in lab.context()
    assert session["cost_usd"] == pytest.approx(0.021)
    assert lab.openrouter.calls(CHAT)[0].body["model"] == "openai/gpt-6-luna:online"


@pytest.mark.parametrize(
    "broken", [Plain({"error": "no json"}, status=403), Plain({"results": []}), Plain({}, status=500)]
)
def test_if_the_first_finds_nothing_the_next_is_asked(tmp_path: Path, stack: ExitStack, broken: Plain) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="searxng")
    lab.engine.on(QUERY, broken)
    lab.ask()
    assert "xAI has found it." in lab.context()


def test_a_local_only_request_searches_nowhere_although_the_engine_is_at_home(tmp_path: Path, stack: ExitStack) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="searxng")
    answered = lab.router.chat(anew("weather in Oslo tomorrow"), headers={"x-router-policy": "local-only"})[1]
    assert answered["x-router-route"] == "primary"
    assert not lab.engine.requests


def test_a_key_without_money_left_may_still_search_with_ones_own_engine(tmp_path: Path, stack: ExitStack) -> None:
    """A search costs nothing there; with xAI it would have to be reserved."""
    database = f"sqlite:///{tmp_path / 'router.db'}"
    keys = {"VIRTUAL_KEYS": "on", "AI_ROUTER_API_KEYS": OWNER, "DATABASE_URL": database}
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text('[chains]\nsearch = ["searxng"]\n')
    lab = Lab(tmp_path, stack, CATALOGUE_FILE=str(catalogue), **keys)
    secret = new_key(database, "--daily-usd", "0")[1]
    bearer = {"authorization": f"Bearer {secret}"}
    assert eventually(lambda: lab.router.chat(anew(), headers=bearer)[0] == 200)
    assert lab.ask(**bearer)["x-router-route"] == "enrich"


def test_a_dry_run_names_it_and_says_that_the_question_leaves(tmp_path: Path, stack: ExitStack) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="searxng")
    connection = lab.router.connection()
    body = {"model": "enrich", "messages": [{"role": "user", "content": "x"}]}
    connection.request("POST", "/v1/route", orjson.dumps(body))
    found = orjson.loads(connection.getresponse().read())
    connection.close()
    assert found["would_ask"][0] == {"backend": "searxng", "model": "json", "local": False, "for": "search"}
    assert found["leaves"] is True


def test_a_search_that_takes_unusually_long_is_made_by_the_next_as_well(tmp_path: Path, stack: ExitStack) -> None:
    """With a deadline of 8 s a search is late after 2 s, while nothing is known of what is usual."""
    settings = {"ENRICH_PROVIDER": "searxng", "SEARCH_HEDGE_SHARE": "1", "SEARCH_TIMEOUT_S": "8"}
    lab = Lab(tmp_path, stack, **settings)
    lab.engine.on(QUERY, Hang())
    headers = lab.ask()
    assert "xAI has found it." in lab.context()
    assert lab.engine.requests[0].gone.wait(10), "the late one is given up"
    session = lab.router.session(headers["x-session-id"])
    assert not [step for step in session["steps"] if step["kind"] in ("fallback", "retry")]
    assert not [part for part in session["cost"]["unknown"] if "searxng" in part], "the engine charges nothing"


def test_by_default_nobody_searches_twice(tmp_path: Path, stack: ExitStack) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="searxng", SEARCH_TIMEOUT_S="1")
    lab.engine.on(QUERY, Hang())
    session = lab.router.session(lab.ask()["x-session-id"])
    assert [step for step in session["steps"] if step["kind"] == "fallback"]


def test_who_found_nothing_as_the_second_is_not_asked_the_same_again(tmp_path: Path, stack: ExitStack) -> None:
    lab = Lab(tmp_path, stack, ENRICH_PROVIDER="searxng", SEARCH_HEDGE_SHARE="1", SEARCH_TIMEOUT_S="4")
    lab.engine.on(QUERY, Hang())
    lab.xai.on(SEARCH, Plain({"status": "completed", "output": []}))
    lab.ask()
    assert "OpenRouter has found it." in lab.context()
    assert len(lab.xai.calls(SEARCH)) == 1
