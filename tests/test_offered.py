"""docs/offered.md against the code: the endpoints, the fields of a request, and what each backend is sent of them."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai import OpenAI
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from ai_router.app import create_app
from ai_router.config import MaxTokensPolicy
from ai_router.config_loading import load_settings
from ai_router.errors import InvalidRequest
from ai_router.providers.catalogue import load_catalogue
from ai_router.providers.families import RequestParts
from ai_router.providers.fields import sent_fields
from ai_router.providers.registry import Backend
from ai_router.runtime import close_app
from ai_router.types import ChatRequest
from ai_router.web.requests import Arrival, parse_chat_request

PAGE = (Path(__file__).parents[1] / "docs/offered.md").read_text()
CATALOGUE = load_catalogue()
ARRIVAL = Arrival(0.0, datetime(2026, 11, 28, tzinfo=UTC), "req_1", "s1", (), "")
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
READ_AND_NOT_PASSED_ON = {"model", "messages", "stream"}
BACKENDS = {
    "primary": ("a-model", MaxTokensPolicy("auto", 8192)),
    "xai": ("grok-4.7", MaxTokensPolicy("pass")),
    "openai": ("gpt-6.1-sol", MaxTokensPolicy("pass")),
    "gemini": ("gemini-3.8-flash", MaxTokensPolicy("pass")),
    "perplexity": ("perplexity/sonar", MaxTokensPolicy("pass")),
    "openrouter": ("openrouter/auto", MaxTokensPolicy("pass")),
}
"""The columns of the tables of fields, each with the model and the policy that they are true for."""
SAMPLES: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "look"}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "stream_options": {"include_obfuscation": False},
}
"""Values of fields that are read or translated; any other field has 1, which all that are checked accept."""


def table(name: str) -> list[list[str]]:
    """The rows of a table between markers, without its head."""
    text = PAGE.partition(f"<!-- {name}: ")[2].partition(f"<!-- /{name} -->")[0]
    _, _, *rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert rows, f"there is no table of {name}"
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


FIELDS = {name: cells for title in ("fields", "extensions") for first, *cells in table(title) for name in code(first)}
READ = {name: cells for first, *cells in table("fields that are read") for name in code(first)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Method and path of every endpoint of the application."""
    environment = {"PRIMARY_URL": "http://127.0.0.1:9", "DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    app = create_app(load_settings({**environment, "TELEMETRY": "off"}, dotenv=None))
    try:
        return {
            f"{method} {spelled(rule.rule)}"
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
    finally:
        close_app(app)


def spelled(rule: str) -> str:
    """Flask's ``<path:model>`` as the page has it: ``{model}``."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def test_every_endpoint_is_on_the_page_and_no_other(served: set[str]) -> None:
    assert {endpoint for first, *_ in table("endpoints") for endpoint in code(first)} == served


def test_every_part_of_the_official_sdk_is_on_the_page() -> None:
    parts = {name for name in dir(OpenAI) if isinstance(getattr(OpenAI, name, None), cached_property)}
    listed = {name for first, *_ in table("openai") for name in code(first)}
    assert listed == {f"client.{name}" for name in parts if not name.startswith("with_")}


def test_what_is_not_offered_is_not_served_and_what_is_offered_is(served: set[str]) -> None:
    paths = {endpoint.partition(" ")[2] for endpoint in served}
    for _, where, status, *_ in [*table("openai"), *table("other APIs")]:
        assert status in ("offered", "planned", "not offered"), status
        for path in code(where):
            assert any(known.startswith(path) for known in paths) == (status == "offered"), path


def test_every_field_of_the_official_sdk_is_on_the_page() -> None:
    assert set(CompletionCreateParamsStreaming.__annotations__) <= FIELDS.keys() | READ.keys()


@pytest.mark.parametrize("name", [*READ, *FIELDS])
def test_the_fields_that_are_checked_are_those_that_the_page_says(name: str) -> None:
    said = READ[name][0] if name in READ else FIELDS[name][0]
    assert refuses(name) == said.startswith(("reads", "checks")), f"{name}: {said}"


def refuses(name: str) -> bool:
    """Whether a value of a wrong type is refused by the field's name."""
    problems = []
    for wrong in ("x", 1):
        try:
            request(**{name: wrong})
        except InvalidRequest as problem:
            problems.append(problem.param)
    assert set(problems) <= {name}
    return bool(problems)


def request(**fields: Any) -> ChatRequest:
    return parse_chat_request(orjson.dumps({"messages": MESSAGES, **fields}), ARRIVAL)


def test_the_fields_that_are_never_forwarded_are_those_that_the_page_says() -> None:
    never = {name for first, *_ in table("never forwarded") for name in code(first)}
    everything = {name: SAMPLES.get(name, 1) for name in {*FIELDS, *READ, *never} - READ_AND_NOT_PASSED_ON}
    assert everything.keys() - request(**everything).params.keys() == never


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_reaches_a_backend_as_the_page_says(name: str, backend: str) -> None:
    said = FIELDS[name][1 + list(BACKENDS).index(backend)]
    assert re.sub(r" \(\w\)$", "", said) == found(name, backend)


def found(name: str, backend: str) -> str:
    """``yes``: as it came; ``-``: not at all; ``translated``: in other words; else the name it has there."""
    value = SAMPLES.get(name, 1)
    with_it, without = body(backend, {name: value}), body(backend, {})
    if name in with_it:
        return "yes" if with_it[name] == value else "translated"
    added = with_it.keys() - without.keys()
    return f"`{added.pop()}`" if added else "-"


def body(backend: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the backend is sent of a plain request with these fields."""
    model, policy = BACKENDS[backend]
    provider = CATALOGUE.providers.get(backend)
    asked = Backend(backend, "http://x", model, "", 1.0, local=provider is None, provider=provider)
    chat = request(**fields)
    parts = RequestParts(
        model=model,
        send_as=asked.facts(model).send_as,
        stream=False,
        messages_json=chat.messages_json,
        params=sent_fields(chat.params, asked.rules(model), policy).values,
    )
    return typing.cast(dict[str, Any], orjson.loads(asked.family.body(parts)))


@pytest.mark.parametrize("provider", [name for name in BACKENDS if name not in ("primary", "openrouter")])
def test_the_tables_are_about_the_models_that_are_asked_by_default(provider: str) -> None:
    assert BACKENDS[provider][0] == CATALOGUE.providers[provider].default_model
    assert f"`{BACKENDS[provider][0]}`" in PAGE
