"""Which models a key is offered: those that it could also ask for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from ai_router.config_loading import load_settings
from ai_router.dispatch.offered_models import offered_models
from ai_router.providers.building import build_registry
from ai_router.providers.names import listing
from ai_router.virtual_key import DEFAULT_ROUTES, AtLimit, KeyLimits, VirtualKey

REGISTRY = build_registry(
    load_settings(
        {"PRIMARY_URL": "http://gpu:8000", "PRIMARY_MODEL": "nano", "XAI_API_KEY": "k", "OPENAI_API_KEY": "k"},
        dotenv=None,
    )
)
TODAY = date(2026, 11, 30)
LOCAL = {"auto", "primary", "primary/nano"}
UNLIMITED = KeyLimits()
BUDGET = KeyLimits(daily_usd=1.0)


def offered(key: VirtualKey | None) -> set[str]:
    return {entry.id for entry in offered_models(REGISTRY, key, TODAY)}


def key(*routes: str, models: tuple[str, ...] = (), limits: KeyLimits = UNLIMITED, local: bool = False) -> VirtualKey:
    chosen = frozenset(routes) or DEFAULT_ROUTES
    return VirtualKey("vk-1", "one", routes=chosen, models=models, limits=limits, local_only=local)


def test_without_a_virtual_key_all_are_offered() -> None:
    assert offered(None) == {entry.id for entry in listing(REGISTRY, TODAY)}


def test_a_key_of_which_nothing_is_said_is_offered_the_routes_and_no_model_of_a_cloud() -> None:
    assert offered(key()) == LOCAL | {"xai", "enrich"}


@pytest.mark.parametrize("only_local", [key("primary", "meta"), key(local=True)])
def test_a_key_that_reaches_no_cloud_is_offered_none(only_local: VirtualKey) -> None:
    assert offered(only_local) == LOCAL


def test_a_key_is_offered_the_models_that_its_patterns_name() -> None:
    found = offered(key(models=("openai/*",)))
    assert found - LOCAL - {"xai", "enrich"} == {name for name in offered(None) if name.startswith("openai/")}


@pytest.mark.parametrize(
    "nothing_plain", [key("enrich"), key("meta"), key("xai", local=True)], ids=["enrich", "meta", "xai, local-only"]
)
def test_who_may_ask_nobody_for_a_plain_answer_is_not_offered_auto(nothing_plain: VirtualKey) -> None:
    assert "auto" not in offered(nothing_plain)


def test_a_key_that_may_spend_nothing_is_offered_what_costs_nothing() -> None:
    assert offered(key(models=("*",), limits=KeyLimits(daily_usd=0.0))) == LOCAL


def test_what_is_answered_at_home_once_nothing_is_left_is_offered() -> None:
    stays = replace(key(models=("*",), limits=KeyLimits(daily_usd=0.0)), at_limit=AtLimit.LOCAL)
    assert offered(stays) == LOCAL | {"xai", "enrich"}


def test_a_key_with_a_budget_is_offered_no_model_of_which_nobody_knows_the_price() -> None:
    priced = offered(key(models=("*",), limits=BUDGET))
    assert LOCAL | {"xai", "enrich"} <= priced
    unpriced = {
        f"{backend.name}/{name}"
        for backend in REGISTRY.clouds.values()
        if backend.provider is not None
        for name, model in backend.provider.models.items()
        if model.price is None
    }
    assert not priced & unpriced
