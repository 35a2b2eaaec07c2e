"""From a decision to the candidates and their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.config_loading import load_settings
from ai_router.dispatch.plan import Plan, misfit, plan_answer
from ai_router.providers.building import build_registry
from ai_router.providers.registry import Candidate
from ai_router.types import DecidedBy, Decision, Label, Route, route_of
from tests.chat_requests import chat_request

BASE = {"PRIMARY_URL": "http://gpu:8000", "PRIMARY_MODEL": "nano"}


def decided(label: Label) -> Decision:
    return Decision(label, route_of(label), DecidedBy.CLASSIFIER, "because")


def named(route: str, model: str | None = None) -> Decision:
    return Decision(Label.EXPLICIT, route, DecidedBy.EXPLICIT, "named", model=model)


def plan(decision: Decision, *, key: bool = True, cloud_fallback: bool = True) -> Plan:
    settings = load_settings({**BASE, **({"XAI_API_KEY": "k"} if key else {})}, dotenv=None)
    return plan_answer(decision, build_registry(settings), cloud_fallback=cloud_fallback)


def who(made: Plan) -> list[str]:
    return [candidate.backend.name for candidate in made.candidates]


@pytest.mark.parametrize(
    ("label", "candidates", "route", "context"),
    [
        (Label.MODERATE, ["primary", "xai"], "primary", False),
        (Label.META, ["primary", "xai"], "meta", False),
        (Label.COMPLEX, ["xai", "primary"], "xai", False),
        (Label.ENRICH, ["primary", "xai"], "enrich", True),
    ],
)
def test_each_label_s_candidates(label: Label, candidates: list[str], route: str, context: bool) -> None:
    made = plan(decided(label))
    assert (who(made), made.route, made.wants_context, made.note) == (candidates, route, context, None)


@pytest.mark.parametrize("label", [Label.COMPLEX, Label.ENRICH])
def test_without_a_key_the_primary_answers_and_the_note_says_why(label: Label) -> None:
    made = plan(decided(label), key=False)
    assert (who(made), made.route, made.wants_context) == (["primary"], "primary", False)
    assert "XAI_API_KEY" in str(made.note)


@pytest.mark.parametrize("label", [Label.MODERATE, Label.META, Label.ENRICH])
def test_what_is_local_stays_local_when_fallback_is_off(label: Label) -> None:
    assert who(plan(decided(label), cloud_fallback=False)) == ["primary"]


def test_the_named_primary_is_never_replaced_by_the_cloud() -> None:
    assert who(plan(named(Route.PRIMARY))) == ["primary"]


def test_a_named_cloud_model_is_never_replaced() -> None:
    made = plan(named(Route.XAI, "grok-4.3"))
    assert [(c.backend.name, c.model) for c in made.candidates] == [("xai", "grok-4.3")]


def test_the_primary_is_the_fallback_of_the_named_route_xai() -> None:
    assert who(plan(named(Route.XAI))) == ["xai", "primary"]


def test_the_answer_of_a_fallback_is_reported_as_its_own_route() -> None:
    made = plan(decided(Label.COMPLEX))
    assert [made.route_for(candidate) for candidate in made.candidates] == ["xai", "primary"]


def test_openai_is_the_fallback_of_xai_and_the_primary_of_both() -> None:
    settings = load_settings({**BASE, "XAI_API_KEY": "k", "OPENAI_API_KEY": "k"}, dotenv=None)
    made = plan_answer(decided(Label.COMPLEX), build_registry(settings), cloud_fallback=False)
    assert (who(made), made.route) == (["xai", "openai", "primary"], "xai")


def test_a_named_provider_is_never_replaced() -> None:
    settings = load_settings({**BASE, "OPENAI_API_KEY": "k"}, dotenv=None)
    for name, model in (("openai", None), ("openai", "gpt-6-luna")):
        made = plan_answer(named(name, model), build_registry(settings), cloud_fallback=True)
        assert [(c.backend.name, c.model) for c in made.candidates] == [("openai", model or "gpt-6.1-sol")]


TOOLS = orjson.Fragment(b'[{"type":"function"}]')
IMAGE = [{"type": "image_url", "image_url": {"url": "u"}}]


@pytest.mark.parametrize(
    ("model", "changes", "why"),
    [
        ("perplexity/sonar", {}, None),
        ("perplexity/sonar", {"messages": [{"role": "user", "content": IMAGE}]}, "sees no pictures"),
        ("perplexity/sonar", {"total_chars": 10_000_000}, "has room for 127000 tokens"),
        ("grok-4.7", {"messages": [{"role": "user", "content": IMAGE}], "params": {"tools": TOOLS}}, None),
        ("blind", {"params": {"tools": TOOLS}}, "takes no tools"),
        ("blind", {"params": {"tools": []}}, None),
        ("blind", {"params": {"tools": orjson.Fragment(b"[]")}}, None),
        ("nobody-knows", {"params": {"tools": TOOLS}}, None),
    ],
)
def test_a_fallback_must_be_able_to_answer(
    tmp_path: Path, model: str, changes: dict[str, Any], why: str | None
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[providers.xai.models.blind]\ncapabilities = []\n")
    keys = {"XAI_API_KEY": "k", "PERPLEXITY_API_KEY": "k", "CATALOGUE_FILE": str(mine)}
    clouds = build_registry(load_settings({**BASE, **keys}, dotenv=None)).clouds
    backend = clouds["perplexity" if "/" in model else "xai"]
    found = misfit(Candidate(backend, model), chat_request(**changes))
    assert found is None if why is None else (found is not None and why in found.why)
