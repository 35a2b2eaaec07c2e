"""What settings and catalogue come to: backends, chains, deadlines."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ai_router.config import SettingsError
from ai_router.config_loading import load_settings
from ai_router.providers.building import build_registry
from ai_router.providers.registry import Backend, Candidate, Registry, api_root

TODAY = date(2026, 11, 22)


def registry(users: Path | None = None, **settings: str) -> Registry:
    values = {"PRIMARY_URL": "http://gpu:8000", "PRIMARY_MODEL": "nano", **settings}
    if users is not None:
        values["CATALOGUE_FILE"] = str(users)
    return build_registry(load_settings(values, None), TODAY)


def chain(made: Registry, route: str) -> list[str]:
    return [f"{candidate.backend.name}/{candidate.model}" for candidate in made.chains[route]]


def test_a_provider_is_there_when_it_has_a_key() -> None:
    assert list(registry().clouds) == []
    assert list(registry(OPENAI_API_KEY="k", GEMINI_API_KEY="k").clouds) == ["openai", "gemini"]


def test_those_without_a_key_are_passed_over_in_a_chain() -> None:
    assert chain(registry(), "complex") == ["primary/nano"]
    assert chain(registry(OPENAI_API_KEY="k"), "complex") == ["openai/gpt-6.1-sol", "primary/nano"]
    assert chain(registry(OPENAI_API_KEY="k", XAI_API_KEY="k"), "complex") == [
        "xai/grok-4.7",
        "openai/gpt-6.1-sol",
        "primary/nano",
    ]


def test_a_chain_of_the_user_s_takes_the_place_of_the_package_s(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[chains]\ncomplex = ["gemini", "xai/grok-4.3", "primary"]\n')
    made = registry(mine, XAI_API_KEY="k", GEMINI_API_KEY="k")
    assert chain(made, "complex") == ["gemini/gemini-3.8-flash", "xai/grok-4.3", "primary/nano"]
    assert chain(made, "moderate") == ["primary/nano", "xai/grok-4.7"]


def test_a_chain_without_anybody_who_can_be_asked_stops_the_start(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[chains]\ncomplex = ["gemini"]\n')
    with pytest.raises(SettingsError, match=r"^CATALOGUE_FILE .*chains\.complex: none of gemini has a key$"):
        registry(mine)


def test_a_provider_is_one_entry_and_no_code(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        """
        [providers.groq]
        base_url = "https://api.groq.com/openai/v1"
        key = "GROQ_API_KEY"
        default_model = "llama"
        [providers.attic]
        base_url = "http://attic:8000"
        local = true
        default_model = "qwen"
        """
    )
    made = registry(mine, GROQ_API_KEY="gsk")
    groq, attic = made.clouds["groq"], made.clouds["attic"]
    assert groq.url("/chat/completions") == "https://api.groq.com/openai/v1/chat/completions"
    assert groq.headers["Authorization"] == "Bearer gsk"
    assert (attic.local, attic.key) == (True, None)
    assert "groq" not in registry(mine).clouds


def test_another_address_for_a_provider() -> None:
    made = registry(OPENAI_API_KEY="k", OPENAI_API_URL="http://proxy:9000/v1/")
    assert made.clouds["openai"].url("/chat/completions") == "http://proxy:9000/v1/chat/completions"


@pytest.mark.parametrize(
    ("base", "root"),
    [
        ("http://gpu:8000", "http://gpu:8000/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://g.com/v1beta/openai", "https://g.com/v1beta/openai"),
        ("https://z.ai/api/paas/v4", "https://z.ai/api/paas/v4"),
        ("http://v2.example.org", "http://v2.example.org/v1"),
    ],
)
def test_an_address_that_names_a_version_is_taken_as_it_is(base: str, root: str) -> None:
    assert api_root(base) == root


def test_a_retired_default_gives_way_to_its_successor_with_a_note() -> None:
    made = registry(XAI_API_KEY="k", XAI_MODEL="grok-3")
    assert made.xai is not None
    assert made.xai.model == "grok-4.3"
    assert made.notes == ("xai: 'grok-3' was retired on 2026-05-15; 'grok-4.3' stands in its place",)


def test_a_key_is_in_the_headers_and_not_in_the_repr() -> None:
    xai = registry(XAI_API_KEY="s3cret").xai
    assert xai is not None
    assert xai.headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(xai)


def test_a_key_that_is_none_is_named_and_not_shown(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[providers.groq]\nbase_url = "https://api.groq.com"\nkey = "GROQ_API_KEY"\n')
    with pytest.raises(SettingsError, match=r"^GROQ_API_KEY must be printable") as caught:
        registry(mine, GROQ_API_KEY="gsk secret")
    assert "secret" not in str(caught.value)


def test_the_free_tier_has_a_gate_of_its_own() -> None:
    openrouter = registry(OPENROUTER_API_KEY="k").clouds["openrouter"]
    assert Candidate(openrouter, "a/b:free").limiter_key == "openrouter:free"
    assert Candidate(openrouter, "a/b").limiter_key == "openrouter"


def test_a_plain_answer_has_no_first_byte_deadline() -> None:
    made = registry()
    assert made.timeouts(made.primary, stream=False, total_s=600).first_byte is None
    assert made.timeouts(made.primary, stream=True, total_s=600).first_byte == 30


def test_who_searches_the_web() -> None:
    def searchers(**keys: str) -> list[tuple[Backend, str]]:
        return [(searcher.backend.name, searcher.search.model) for searcher in registry(**keys).searchers]

    assert searchers() == []
    assert searchers(PERPLEXITY_API_KEY="k") == [("perplexity", "perplexity/sonar")]
    assert searchers(PERPLEXITY_API_KEY="k", XAI_API_KEY="k", XAI_SEARCH_MODEL="grok-4.5") == [
        ("xai", "grok-4.5"),
        ("perplexity", "perplexity/sonar"),
    ]


def test_only_the_embedded_model_has_defaults_of_its_own_and_is_told_no_date() -> None:
    settings = load_settings({"PRIMARY_URL": "http://gpu"}, dotenv=None)
    configured = build_registry(settings).primary
    assert (configured.defaults, configured.takes_date) == ({}, True)
    embedded = build_registry(settings.model_copy(update={"embedded": True})).primary
    assert embedded.defaults["temperature"] == 0.2
    assert not embedded.takes_date
