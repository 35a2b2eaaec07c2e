"""The catalogue's file: what it says, and one line for everything that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_router.config import SettingsError
from ai_router.config_docs import documented_settings
from ai_router.providers import families
from ai_router.providers.catalogue import load_catalogue

HERE = Path(families.__file__).parent


def test_the_packaged_catalogue_is_sound_and_priced() -> None:
    catalogue = load_catalogue()
    assert set(catalogue.providers) == {"xai", "openai", "anthropic", "gemini", "perplexity", "openrouter"}
    for provider in catalogue.providers.values():
        assert provider.default_model is None or provider.default_model in provider.models
        for name, model in provider.models.items():
            assert model.price is not None or model.send_as == "preset" or name == "openrouter/auto", name


def test_the_packaged_providers_variables_are_settings() -> None:
    known = {setting.env for setting in documented_settings()}
    for provider in load_catalogue().providers.values():
        assert {provider.key, provider.url} <= known


def test_no_name_in_use_falls_under_a_retirement() -> None:
    for provider in load_catalogue().providers.values():
        for model in provider.models:
            assert provider.retirement(model) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = [", "is no TOML"),
        ("[nothing]", "unknown field `nothing`"),
        ("[providers.a]", "missing required field `base_url`"),
        ('[providers.a]\nbase_url = "ftp://x"', "providers.a: base_url must look like http"),
        (
            '[providers.a]\nbase_url = "http://x"\nfamily = "soap"',
            "family must be one of agent, chat,",
        ),
        ('[providers.a]\nbase_url = "http://x"\nkey = "sk-123"', "must be the name of a variable"),
        ('[providers.a]\nbase_url = "http://x"\nbase = 1', "unknown field `base`"),
        ('[providers.primary]\nbase_url = "http://x"', "a provider's name must"),
        ('[providers.xai.models."g"]\ncontext = -1', "`int` >= 1"),
        ('[providers.xai.models."g"]\ncapabilities = ["magic"]', "Invalid enum value 'magic'"),
        ('[providers.xai.retired."old"]\nreplaced_by = "new"', "replaced_by 'new' is none of its models"),
        ('[providers.xai]\ndefault_model = "nope"', "default_model 'nope' is none of its models"),
        ('[chains]\nhard = ["primary"]', "chains.hard: there is no such chain"),
        ("[chains]\ncomplex = []", "must name at least one"),
        ('[chains]\ncomplex = ["xai", "xai"]', "names a backend twice"),
        ('[chains]\ncomplex = ["xay"]', "did you mean xai?"),
        ('[chains]\ncomplex = ["xai/grok-4.77"]', "xai has no model 'grok-4.77'; did you mean grok-4.7"),
        ('[chains]\ncomplex = ["openrouter"]', "has no default_model: write openrouter/<model>"),
        ('[chains]\nsearch = ["openai"]', "no entry that says how to search"),
        ('[chains]\nsearch = ["xai/grok-4.3"]', "who searches is a provider"),
        ('[providers.a]\nbase_url = "http://a b"', "base_url must look like http"),
        ('[providers.a]\nbase_url = "http://a"\nheaders = { X = "a\\nb" }', "is no header that can be sent"),
        ("x = " + "[" * 5000, "is no TOML"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_setting(tmp_path: Path, text: str, complaint: str) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_catalogue(mine)
    assert str(caught.value).startswith(f"CATALOGUE_FILE {mine}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_catalogue(tmp_path / "none.toml")


def test_the_user_s_file_is_laid_over_the_package_s(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[providers.xai]\nttft_s = 5\n[providers.xai.models."grok-x"]\ncontext = 10\n')
    xai = load_catalogue(mine).providers["xai"]
    assert (xai.ttft_s, xai.base_url) == (5, "https://api.x.ai")
    assert {"grok-x", "grok-4.7"} <= set(xai.models)


def test_an_api_family_is_one_short_module() -> None:
    for module in HERE.glob("*.py"):
        assert module.read_text().count("\n") < 160, module
