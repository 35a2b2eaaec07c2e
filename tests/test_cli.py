"""The command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ai_router import __version__
from ai_router.cli import main
from tests.fakes.personas import CHAT, classifies
from tests.fakes.upstream import FakeUpstream, Plain


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs ``ai-router`` with just these settings."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str, **settings: str) -> Result:
        monkeypatch.setattr("os.environ", dict(settings))
        return CliRunner().invoke(main, words)

    return command


def test_version(run) -> None:
    assert __version__ in run("--version").output


def test_route_explains_a_decision_by_rule(run) -> None:
    result = run("route", "what is the weather in Rome?")
    assert result.exit_code == 0
    assert result.output.startswith("ENRICH -> enrich (decided by fast)\nrule: asks for something current")


def test_route_asks_the_classifier_where_there_is_one(run, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, classifies("COMPLEX", probability=0.8))
    result = run("route", "--json", "prove it", ROUTER_URL=upstream.url)
    decision = json.loads(result.output)
    assert (decision["label"], decision["route"], decision["decided_by"]) == ("COMPLEX", "xai", "classifier")
    assert decision["confidence"] == 0.8


def test_a_bad_setting_is_one_line(run) -> None:
    result = run("route", "x", PORT="eighty")
    assert (result.exit_code, result.output) == (2, "ai-router: PORT must be a whole number, not 'eighty'\n")


def test_doctor_finds_all_well(run, upstream: FakeUpstream) -> None:
    result = run("doctor", PRIMARY_URL=upstream.url, XAI_API_URL=upstream.url)
    assert result.exit_code == 0, result.output
    assert "primary: " in result.output
    assert "no XAI_API_KEY" in result.output
    assert result.output.endswith("all is well\n")


def test_doctor_names_what_is_wrong_and_no_key(run, upstream: FakeUpstream) -> None:
    upstream.on("/v1/models", Plain({"error": "Incorrect API key provided: s3cret"}, status=400))
    result = run("doctor", PRIMARY_URL=upstream.url, XAI_API_URL=upstream.url, XAI_API_KEY="s3cret")
    assert result.exit_code == 1
    assert "problem: xai is not well: HTTP 400: Incorrect API key provided\n" in result.output
    assert "s3cret" not in result.output


def test_doctor_asks_every_backend_also_beside_the_embedded_model(run) -> None:
    result = run("doctor", ROUTER_URL="http://127.0.0.1:9", XAI_API_URL="http://127.0.0.1:9", XAI_API_KEY="k")
    assert result.exit_code == 1
    assert "problem: classifier is not well: connection refused\n" in result.output
    assert "problem: xai is not well: connection refused\n" in result.output


def test_doctor_finds_what_cannot_be_written_and_names_nobody_knows(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".env").write_text("PRIMRY_URL=http://x\n")
    result = run("doctor", LOG_FILE=str(tmp_path), SESSION_DIR=str(tmp_path / "file"))
    assert result.exit_code == 1
    assert f"problem: LOG_FILE {tmp_path} is a directory\n" in result.output
    assert "problem: SESSION_DIR (or DATA_DIR): " in result.output
    assert "note: .env: PRIMRY_URL is no setting of the router\n" in result.output


@pytest.mark.parametrize("setting", ["LOG_FILE", "DATA_DIR"])
def test_a_log_that_cannot_be_written_stops_the_start_with_one_line(run, tmp_path: Path, setting: str) -> None:
    (tmp_path / "file").touch()
    result = run("serve", **{setting: str(tmp_path / "file" / "x")})
    assert result.exit_code == 2
    assert result.output.startswith("ai-router: LOG_FILE (or DATA_DIR): ")
    assert result.output.count("\n") == 1


def test_a_port_that_is_taken_stops_the_start_with_one_line(run, upstream: FakeUpstream) -> None:
    result = run("serve", PORT=str(upstream.port))
    assert result.exit_code == 2
    assert result.output.startswith(
        f"ai-router: PORT {upstream.port} on 127.0.0.1 cannot be had: Address already in use"
    )


def test_route_tells_who_would_really_answer(run) -> None:
    result = run("route", "what is the weather in Rome?")
    assert result.output.endswith("enrich needs XAI_API_KEY, which is not set; the primary stands in\n")
    decision = json.loads(run("route", "--json", "what is the weather in Rome?").output)
    assert decision["answered_by"] == ["primary/smollm2-135m-instruct"]


def test_doctor_knows_the_embedded_model(run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "embedded, smollm2-135m-instruct from SmolLM2-135M-Instruct.Q4_1.gguf" in result.output
