"""``ai-router doctor --discover``."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dotenv import dotenv_values

from ai_router.cli.main import main
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream
from tests.providers.test_servers import listed

DOCS = Path(__file__).parents[2] / "docs" / "running.md"

Discover = Callable[..., Result]


@pytest.fixture
def discover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: FakeUpstream) -> Discover:
    """Runs the command where only ``upstream`` listens on this machine, with these answers to its questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ai_router.cli.discovering.PORTS", (upstream.port,))

    def command(*words: str, answers: str = "", **environment: str) -> Result:
        monkeypatch.setattr("os.environ", {"HOME": str(tmp_path), **environment})
        return CliRunner().invoke(main, ["doctor", "--discover", *words], input=answers)

    upstream.on("/v1/models", Plain(listed("vllm", "big-30b")))
    return command


def written() -> dict[str, str | None]:
    return dict(dotenv_values(Path(".env")))


def test_what_it_proposes_is_written_and_then_checked(discover: Discover, upstream: FakeUpstream) -> None:
    result = discover(answers="\n\n\n")
    assert f"found: vLLM at {upstream.url}, 1 model(s)\n" in result.output
    assert f"   1  big-30b (30B) on vLLM, {upstream.url}\n" in result.output
    assert written() == {"PRIMARY_URL": upstream.url, "PRIMARY_MODEL": "big-30b"}
    assert f"primary: {upstream.url} (big-30b) ok" in result.output
    assert (result.exit_code, stat.S_IMODE(Path(".env").stat().st_mode)) == (0, 0o600)


def test_a_classifier_on_another_machine(discover: Discover, upstream: FakeUpstream) -> None:
    with fake_upstream() as other:
        other.on("/v1/models", Plain(listed("vllm", "Nemotron-Orchestrator-8B")))
        assert discover("--yes", "--at", f"127.0.0.1:{other.port}").exit_code == 0
        assert written() == {
            "PRIMARY_URL": upstream.url,
            "PRIMARY_MODEL": "big-30b",
            "ROUTER_URL": other.url,
            "ROUTER_MODEL": "Nemotron-Orchestrator-8B",
        }


def test_the_owner_may_choose_otherwise(discover: Discover, upstream: FakeUpstream) -> None:
    upstream.on("/v1/models", Plain(listed("vllm", "big-30b", "small-4b")))
    discover(answers="2\n1\ny\n")
    assert (written()["PRIMARY_MODEL"], written()["ROUTER_MODEL"]) == ("small-4b", "big-30b")


def test_who_says_no_keeps_what_there_is(discover: Discover) -> None:
    Path(".env").write_text("# mine\nPORT=9090\n")
    discover(answers="1\n0\nn\n")
    assert Path(".env").read_text() == "# mine\nPORT=9090\n"


def test_other_lines_stay_and_the_environment_is_named(discover: Discover, upstream: FakeUpstream) -> None:
    Path(".env").write_text("# mine\nPRIMARY_URL=http://old\nPORT=9090")
    Path(".env").chmod(0o640)
    result = discover("--yes", PRIMARY_MODEL="big-30b")
    text = Path(".env").read_text()
    assert text.startswith(f"# mine\nPRIMARY_URL='{upstream.url}'\nPORT=9090\n")
    assert "note: PRIMARY_MODEL in the environment wins over .env" in result.output
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o640
    assert ".env says so already" in discover("--yes").output


def test_a_linked_file_stays_a_link(discover: Discover) -> None:
    Path("elsewhere").write_text("PORT=9090\n")
    Path(".env").symlink_to("elsewhere")
    discover("--yes")
    assert Path(".env").is_symlink()
    assert written()["PORT"] == "9090"
    assert written()["PRIMARY_MODEL"] == "big-30b"


def test_a_model_file_where_no_server_is(discover: Discover, upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.on("/v1/models", Plain({}, status=404))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "it's mine.gguf"
    file.write_bytes(b"GGUF")
    Path(".env").write_text("PRIMARY_URL=http://old\n")
    result = discover(answers="1\ny\n")
    assert "no server of models found" in result.output
    assert written() == {"PRIMARY_URL": "", "EMBEDDED_MODEL": str(file)}


def test_no_file_is_taken_unasked(discover: Discover, upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.on("/v1/models", Plain({}, status=404))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.gguf").write_bytes(b"GGUF")
    discover("--yes")
    assert not Path(".env").exists()


def test_it_looks_as_the_docs_show(discover: Discover, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.on("/v1/models", Plain(listed("vllm", "qwen3-30b-a3b")))
    with fake_upstream() as ollama:
        small = {"name": "qwen3:8b", "details": {"family": "qwen3", "parameter_size": "8.2B"}}
        large = {"name": "llama3.3:70b", "details": {"family": "llama", "parameter_size": "70.6B"}}
        ollama.on("/v1/models", Plain(listed("library", "qwen3:8b", "llama3.3:70b")))
        ollama.on("/api/version", Plain({"version": "0.15.0"}))
        ollama.on("/api/tags", Plain({"models": [small, large]}))
        ollama.on("/api/ps", Plain({"models": [small]}))
        monkeypatch.setattr("ai_router.cli.discovering.PORTS", (upstream.port, ollama.port))
        output = discover(answers="\n\n\n").output
    shown = output.replace(str(upstream.port), "8000").replace(str(ollama.port), "11434")
    example = DOCS.read_text().partition("doctor --discover\n")[2].partition("```")[0]
    # The docs show no blank after a question.
    assert shown.replace(": \n", ":\n").startswith(example)


@pytest.mark.parametrize("address", ["", "foo bar", "gpu:99999", "gpu:x", "ftp://gpu"])
def test_an_address_that_is_none_is_named(discover: Discover, address: str) -> None:
    result = discover("--at", address)
    assert result.exit_code == 2
    assert f"Error: --at {address!r}: " in result.output


def test_its_options_alone_are_a_mistake() -> None:
    result = CliRunner().invoke(main, ["doctor", "--at", "gpu"])
    assert result.exit_code == 2
    assert "--at and --yes belong to --discover" in result.output
