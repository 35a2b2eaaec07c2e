"""What a client may name."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ai_router.errors import ModelNotFound
from ai_router.providers.names import ResolvedModel, listing, resolve
from tests.providers.test_registry import TODAY, registry

WITH_XAI = {"XAI_API_KEY": "k", "XAI_MODEL": "grok-4.7"}
ALL = {f"{name}_API_KEY": "k" for name in ("XAI", "OPENAI", "GEMINI", "PERPLEXITY", "OPENROUTER")}


def named(model: str, today: date = TODAY, **keys: str) -> ResolvedModel:
    return resolve(registry(**(keys or ALL)), model, today)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("auto", ResolvedModel("auto")),
        ("primary", ResolvedModel("primary")),
        ("xai", ResolvedModel("xai")),
        ("enrich", ResolvedModel("enrich")),
        ("openai", ResolvedModel("openai")),
        ("nano", ResolvedModel("primary", "nano")),
        ("grok-4.7", ResolvedModel("xai", "grok-4.7")),
        ("xai/grok-4.3", ResolvedModel("xai", "grok-4.3")),
        ("xai/grok-of-tomorrow", ResolvedModel("xai", "grok-of-tomorrow")),
        ("primary/org/model", ResolvedModel("primary", "org/model")),
        ("gpt-6-luna", ResolvedModel("openai", "gpt-6-luna")),
        ("gemini/gemini-3.8-flash", ResolvedModel("gemini", "gemini-3.8-flash")),
        ("perplexity/sonar", ResolvedModel("perplexity", "perplexity/sonar")),
        ("perplexity/high", ResolvedModel("perplexity", "high")),
        ("openrouter/z-ai/glm-5.3-flash", ResolvedModel("openrouter", "z-ai/glm-5.3-flash")),
        ("openrouter/any/model:free", ResolvedModel("openrouter", "any/model:free")),
    ],
)
def test_names(model: str, expected: ResolvedModel) -> None:
    assert named(model) == expected


@pytest.mark.parametrize(
    ("old", "provider", "successor"),
    [
        ("gpt-3.5-turbo", "openai", "gpt-6-luna"),
        ("gpt-3.5-turbo-0125", "openai", "gpt-6-luna"),
        ("gpt-4-turbo", "openai", "gpt-6.1-sol"),
        ("gpt-4-turbo-preview", "openai", "gpt-6.1-sol"),
        ("gemini-1.5-flash", "gemini", "gemini-3.5-flash-lite"),
        ("gemini-1.5-pro-latest", "gemini", "gemini-3.8-flash"),
        ("gemini-pro", "gemini", "gemini-3.8-flash"),
        ("gemini-2.0-flash-exp", "gemini", "gemini-3.5-flash-lite"),
        ("sonar", "perplexity", "fast"),
        ("sonar-pro", "perplexity", "low"),
        ("sonar-reasoning-pro", "perplexity", "medium"),
        ("sonar-deep-research", "perplexity", "high"),
        ("grok-3", "xai", "grok-4.3"),
        ("grok-3-mini", "xai", "grok-4.3"),
        ("grok-4-fast-reasoning", "xai", "grok-4.3"),
    ],
)
@pytest.mark.parametrize("prefixed", [False, True], ids=["bare", "prefixed"])
def test_retired_names_lead_to_their_successors_with_a_warning(
    old: str, provider: str, successor: str, prefixed: bool
) -> None:
    # perplexity/sonar is a model of today.
    found = named(f"{provider}/{old}" if prefixed and old != "sonar" else old)
    assert (found.route, found.model) == (provider, successor)
    assert found.warning is not None
    assert f"'{old}' was retired" in found.warning
    assert successor in found.warning


def test_a_name_that_will_be_retired_works_until_the_day_and_says_so() -> None:
    before, after = named("gpt-4o", date(2027, 1, 13)), named("gpt-4o", date(2027, 1, 14))
    assert before == ResolvedModel(
        "openai", "gpt-4o", "'gpt-4o' will be retired on 2027-01-14; its successor is 'gpt-6-luna'"
    )
    assert after.model == "gpt-6-luna"


@pytest.mark.parametrize("model", ["gpt-99", "xai/", "openai/gpt", "Primary", "enrich/x", "/", "x/"])
def test_anything_else_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        named(model, **WITH_XAI)


def test_a_cloud_model_without_a_key_is_not_found_but_its_route_may_be_named() -> None:
    with pytest.raises(ModelNotFound, match=r"It is xAI's, and XAI_API_KEY is not set"):
        named("xai/grok-4.3", OPENAI_API_KEY="k")
    assert named("xai", OPENAI_API_KEY="k") == ResolvedModel("xai")


def test_a_retired_model_without_a_key_says_which_key_is_missing() -> None:
    with pytest.raises(ModelNotFound, match=r"OPENAI_API_KEY is not set"):
        named("gpt-4-turbo", **WITH_XAI)


def test_the_nearest_names_are_offered() -> None:
    with pytest.raises(ModelNotFound, match=r"Did you mean: grok-4\.\d"):
        named("grok-4.99", **WITH_XAI)


def test_what_cannot_work_is_not_listed() -> None:
    assert [entry.id for entry in listing(registry(), TODAY)] == ["auto", "primary", "primary/nano"]


def test_every_listed_name_resolves_without_a_warning() -> None:
    whole = registry(**ALL)
    for entry in listing(whole, TODAY):
        found = resolve(whole, entry.id, TODAY)
        assert found is None or found.warning is None, entry.id


@pytest.mark.parametrize("model", ["claude-opus-5.5", "gpt-4o", "gpt-4o-mini", "gpt-3.5-turbo", "gpt-3.5-turbo-0125"])
def test_names_that_clients_have_built_in_are_auto_without_a_key_for_them(model: str) -> None:
    assert named(model, **WITH_XAI) == ResolvedModel("auto")


def test_a_name_whose_provider_has_a_key_is_no_alias() -> None:
    assert named("gpt-4o-mini").route == "openai"
    assert named("claude-opus-5.5") == ResolvedModel("auto")


def test_no_alias_takes_the_name_of_a_primary() -> None:
    assert named("gpt-oss-20b", PRIMARY_MODEL="gpt-oss-20b") == ResolvedModel("primary", "gpt-oss-20b")
    with pytest.raises(ModelNotFound):
        named("gpt-oss-20b", **WITH_XAI)


def test_of_two_patterns_the_longer_one_counts_and_an_exact_name_before_both(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[aliases]\n"claude-opus*" = "xai"\n"claude-opus-5" = "primary"\n')
    keys = {**WITH_XAI, "CATALOGUE_FILE": str(mine)}
    assert named("claude-haiku-5", **keys) == ResolvedModel("auto")
    assert named("claude-opus-5.5", **keys) == ResolvedModel("xai")
    assert named("claude-opus-5", **keys) == ResolvedModel("primary")


def test_an_alias_of_what_has_no_key_is_not_found(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[aliases]\nbest = "openai/gpt-6.1-sol"\n')
    with pytest.raises(ModelNotFound):
        named("best", CATALOGUE_FILE=str(mine))
    assert "best" not in [entry.id for entry in listing(registry(CATALOGUE_FILE=str(mine)), TODAY)]


def test_an_unknown_model_may_be_taken_for_auto_with_a_warning() -> None:
    found = named("gpt-99", UNKNOWN_MODEL="auto")
    assert found.route == "auto"
    assert found.warning == "there is no model 'gpt-99' here: it is taken for 'auto'"
