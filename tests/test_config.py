"""Settings: defaults, parsing, and one line for every bad value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ai_router.config import MaxTokensPolicy, SettingsError
from ai_router.config_docs import documented_settings
from ai_router.config_loading import load_settings

EXAMPLE = Path(__file__).parents[1] / ".env.example"


def test_nothing_set_gives_the_defaults() -> None:
    settings = load_settings({}, dotenv=None)
    assert (settings.host, settings.port, settings.primary_url) == ("127.0.0.1", 8080, None)
    assert settings.log_path == Path("data/app.log")
    assert settings.session_path == Path("data/sessions")


def test_an_empty_value_counts_as_unset() -> None:
    assert load_settings({"PORT": "", "XAI_API_KEY": " "}, dotenv=None).xai_api_key is None


def test_the_environment_wins_over_the_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nHOST=127.0.0.2\n")
    settings = load_settings({"PORT": "2222"}, dotenv=tmp_path / ".env")
    assert (settings.port, settings.host) == (2222, "127.0.0.2")


def test_an_empty_variable_of_the_environment_hides_the_dotenv_files(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1111\n")
    assert load_settings({"PORT": ""}, dotenv=tmp_path / ".env").port == 8080


@pytest.mark.parametrize("name", ["port", "Port", "EMBEDDED", "embedded", "PRIMARY_KEY", "primary_key", "API_KEYS"])
def test_only_the_documented_names_are_read(name: str) -> None:
    assert load_settings({name: "1"}, dotenv=None) == load_settings({}, dotenv=None)


@pytest.mark.parametrize("url", ["http://gpu:8000", "http://gpu:8000/", "http://gpu:8000/v1", "http://gpu:8000/v1/"])
def test_a_base_url_may_end_in_v1(url: str) -> None:
    assert load_settings({"PRIMARY_URL": url}, dotenv=None).primary_url == "http://gpu:8000"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("THREADS", "1"),
        ("PRIMARY_URL", "gpu:8000"),
        ("PRIMARY_URL", "http://gpu:port"),
        ("ROUTER_URL", "http://user:pass@gpu"),
        ("CLASSIFIER_MODE", "clever"),
        ("SPECULATION", "sometimes"),
        ("PRIMARY_MAX_TOKENS", "add:"),
        ("PRIMARY_MAX_TOKENS", "strip:3"),
        ("DATE_CONTEXT", "perhaps"),
        ("CONNECT_TIMEOUT_S", "0"),
        ("CONNECT_TIMEOUT_S", "nan"),
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("HOST", "0.0.0.0"),
        ("HOST", "::"),
    ],
)
def test_a_bad_value_is_one_line_that_begins_with_the_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value}, dotenv=None)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [setting.env for setting in documented_settings()])
@pytest.mark.parametrize("value", ["\udcff", "x y", ",", "[1]", "{}", "null", "1e999", "http://[::1"])
def test_whatever_is_written_is_taken_or_refused_in_one_line(name: str, value: str) -> None:
    try:
        load_settings({name: value}, dotenv=None)
    except SettingsError as problem:
        assert str(problem).startswith(name)
        assert "\n" not in str(problem)


@pytest.mark.parametrize("name", ["XAI_API_KEY", "AI_ROUTER_API_KEYS"])
def test_a_bad_key_is_not_repeated(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: "sec ret"}, dotenv=None)
    assert "ret" not in str(caught.value).removeprefix(name)


def test_keys_are_not_shown_by_repr() -> None:
    settings = load_settings({"XAI_API_KEY": "hidden-1", "AI_ROUTER_API_KEYS": "hidden-2, hidden-3"}, dotenv=None)
    assert settings.api_keys == ("hidden-2", "hidden-3")
    assert "hidden" not in repr(settings)


def test_settings_change_in_a_copy_only() -> None:
    settings = load_settings({}, dotenv=None)
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    changed = settings.model_copy(update={"primary_url": "http://gpu:8000"})
    assert (settings.primary_url, changed.primary_url, changed.port) == (None, "http://gpu:8000", 8080)


@pytest.mark.parametrize("extra", [{"AI_ROUTER_API_KEYS": "k"}, {"ALLOW_UNAUTHENTICATED": "1"}])
def test_another_host_than_loopback_needs_a_key_or_the_word(extra: dict[str, str]) -> None:
    assert load_settings({"HOST": "0.0.0.0", **extra}, dotenv=None).host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_loopback_needs_none(host: str) -> None:
    assert load_settings({"HOST": host}, dotenv=None).host == host


@pytest.mark.parametrize(
    ("value", "policy"),
    [("strip", MaxTokensPolicy("strip")), ("PASS", MaxTokensPolicy("pass")), ("add:500", MaxTokensPolicy("add", 500))],
)
def test_max_tokens_policies(value: str, policy: MaxTokensPolicy) -> None:
    assert load_settings({"PRIMARY_MAX_TOKENS": value}, dotenv=None).primary_max_tokens == policy


@pytest.mark.parametrize(("threads", "kept"), [("4", 2), ("8", 6), ("72", 63)])
def test_some_threads_are_kept_from_chat_requests(threads: str, kept: int) -> None:
    assert load_settings({"THREADS": threads}, dotenv=None).request_threads == kept


def test_streams_are_counted_apart_from_threads_and_a_backend_s_numbers_follow_the_threads() -> None:
    usual, many = load_settings({}, dotenv=None), load_settings({"MAX_STREAMS": "5000"}, dotenv=None)
    assert usual.max_in_flight == 1000 + 63
    assert many.max_in_flight == 5000 + 63
    for settings in (usual, many):
        assert (settings.request_threads, settings.backends_cap, settings.queue_limit) == (63, 47, 31)


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    written = {}
    for line in EXAMPLE.read_text().splitlines():
        name, equals, value = line.removeprefix("# ").removeprefix("#").partition("=")
        if equals and name.isupper():
            written[name] = value
    assert written == {setting.env: setting.default or "" for setting in documented_settings()}


def test_the_example_can_be_used_as_it_is(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(EXAMPLE.read_text())
    assert load_settings({}, dotenv=dotenv) == load_settings({}, dotenv=None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_settings_may_be_utf_8_or_utf_16_with_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / ".env").write_bytes("# caf\u00e9\nPRIMARY_MODEL=\u6a21\u578b\n".encode(encoding))
    assert load_settings({}, tmp_path / ".env").primary_model == "\u6a21\u578b"


def test_a_file_of_settings_in_another_encoding_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"# a\n# caf\xe9\n")
    with pytest.raises(SettingsError, match=r"\.env is no UTF-8 text: line 2 ") as refusal:
        load_settings({}, tmp_path / ".env")
    assert "\n" not in str(refusal.value)
