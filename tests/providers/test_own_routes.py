"""[routes] in the catalogue: what is a route, who answers it, and what its name may be."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ai_router.config import SettingsError
from ai_router.config_loading import load_settings
from ai_router.dispatch.plan import plan_answer
from ai_router.providers.building import build_registry
from ai_router.providers.names import listing, resolve
from ai_router.providers.registry import Registry
from ai_router.types import DecidedBy, Decision

EXAMPLES = '["a one", "a two", "a three", "a four", "a five"]'
TODAY = date(2026, 11, 30)


def registry(folder: Path, text: str, **settings: str) -> Registry:
    (folder / "mine.toml").write_text(text)
    environment = {"PRIMARY_URL": "http://127.0.0.1:9", "CATALOGUE_FILE": str(folder / "mine.toml"), **settings}
    return build_registry(load_settings(environment, dotenv=None), TODAY)


def route(name: str = "code", who: str = 'backend = "primary"', examples: str = EXAMPLES, more: str = "") -> str:
    return f'[routes.{name}]\ndescription = "program code"\n{who}\nexamples = {examples}\n{more}\n'


def named(name: str) -> Decision:
    return Decision("EXPLICIT", name, DecidedBy.EXPLICIT, "named")


def test_it_is_a_model_that_a_client_may_name_before_anything_else(tmp_path: Path) -> None:
    ours = registry(tmp_path, route())
    assert resolve(ours, "code", TODAY).route == "code"
    assert "code" in [entry.id for entry in listing(ours, TODAY)]


@pytest.mark.parametrize("decision", [named("code"), Decision("CODE", "code", DecidedBy.FAST, "like its examples")])
def test_its_chain_answers_it_and_the_rest_stands_in(tmp_path: Path, decision: Decision) -> None:
    ours = registry(
        tmp_path, route(who='chain = ["xai/grok-4.3", "primary"]', more="max_tokens = 500"), XAI_API_KEY="k"
    )
    plan = plan_answer(decision, ours, cloud_fallback=True)
    assert next((one.backend.name, one.model) for one in plan.candidates) == ("xai", "grok-4.3")
    assert (plan.route, plan.max_tokens, len(plan.candidates)) == ("code", 500, 2)
    assert plan.route_for(plan.candidates[1]) == "primary"


def test_one_that_begins_at_home_stays_there_without_cloud_fallback(tmp_path: Path) -> None:
    ours = registry(tmp_path, route(who='chain = ["primary", "xai"]'), XAI_API_KEY="k")
    plan = plan_answer(named("code"), ours, cloud_fallback=False)
    assert [one.backend.name for one in plan.candidates] == ["primary"]


def test_who_has_no_key_is_left_out_of_its_chain(tmp_path: Path) -> None:
    ours = registry(tmp_path, route(who='chain = ["xai", "primary"]'))
    assert [one.backend.name for one in ours.chains["code"]] == ["primary"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (route("primary"), "routes.primary: there is a route or a provider of that name"),
        (route("xai"), "routes.xai: there is a route or a provider of that name"),
        (route("openai"), "routes.openai: there is a route or a provider of that name"),
        (route("enrich"), "routes.enrich: there is a route or a provider of that name"),
        (route("moderate"), "routes.moderate: there is a route or a provider of that name"),
        (route("embeddings"), "routes.embeddings: there is a route or a provider of that name"),
        (route('"claude-*"'), "routes.claude-*: a route's name must match"),
        (route("Code"), "routes.Code: a route's name must match"),
        (route("a-name-of-17-char"), "routes.a-name-of-17-char: a route's name must match"),
        (route("mod"), "routes.mod: neither of 'mod' and 'moderate' may begin the other"),
        (route("code") + route("code-review"), "routes.code: neither of 'code' and 'code-review' may begin the other"),
        (route(examples='["a", "b", "c", "d"]'), "routes.code: it needs 5 different examples at least, and has 4"),
        (route(examples='["a", "b", "c", "d", " A "]'), "routes.code: it needs 5 different examples at least"),
        (route(who=""), "routes.code: it has a backend, or a chain of several: one of them"),
        (route(who='backend = "primary"\nchain = ["xai"]'), "routes.code: it has a backend, or a chain of several"),
        (
            route(who='backend = "primry"'),
            "routes.code: 'primry' is no provider of the catalogue; did you mean primary?",
        ),
        (route(who='backend = "xai/grok-1"'), "routes.code: xai has no model 'grok-1'"),
        (route(who='backend = "xai"'), "routes.code: none of xai has a key"),
        (route(more="max_tokens = 0"), "Expected `int` >= 1 - at `$.routes[...].max_tokens`"),
        (route(more='exmples = ["a"]'), "unknown field `exmples` - at `$.routes[...]`"),
        (route().replace("program code", "  "), "routes.code: its description says what is asked of it"),
    ],
)
def test_what_is_no_route_stops_the_start_and_says_why(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as found:
        registry(tmp_path, text)
    assert problem in str(found.value)
    assert "\n" not in str(found.value)


def test_its_digest_changes_with_what_it_is_learned_from_and_not_with_who_answers(tmp_path: Path) -> None:
    digests = [
        registry(tmp_path, text, XAI_API_KEY="k").catalogue.routes["code"].digest
        for text in (
            route(),
            route(who='backend = "xai"', more="max_tokens = 5"),
            route(examples=EXAMPLES.replace("five", "six")),
            route(more='unlike = ["a six"]'),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
