"""Coding agents of the command line, as people run them: a question, an edit by a tool, an abort.

'make test-clients' installs them. The primary speaks chat completions only, so that what
Codex and Claude Code say is translated.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.client_apis.answers import chunks_of, completion
from tests.fakes.personas import CHAT, DONE, chunk, event
from tests.fakes.router import RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Recorded, Reply, Stream, fake_upstream

ROOT = Path(__file__).parents[2]
NODE = ROOT / ".agents/node_modules/.bin"
AIDER = ROOT / ".agents/aider/bin"
HELLO, WRITTEN, MARK = "Hello from the primary.", "Done: the note is written.", "MAKENOTE"
_LIMIT_S = 120


@dataclass(frozen=True)
class Agent:
    """How to run an agent with a prompt, and which tool writes a file."""

    command: Callable[[str], list[str]]
    environment: Callable[[RunningRouter], Mapping[str, str]] = lambda _: {}
    files: Callable[[RunningRouter], Mapping[str, str]] = lambda _: {}
    """In its home: what people write into its settings."""
    tool: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """{note} is the path of the file."""


def codex_settings(router: RunningRouter) -> dict[str, str]:
    text = f"""
model = "auto"
model_provider = "router"

[model_providers.router]
name = "router"
base_url = "{router.url}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"""
    return {".codex/config.toml": text}


def opencode_settings(router: RunningRouter) -> dict[str, str]:
    options = {"baseURL": f"{router.url}/v1", "apiKey": "x"}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"auto": {}}}
    chosen = {"model": "router/auto", "small_model": "router/auto", "autoupdate": False, "share": "disabled"}
    return {".config/opencode/opencode.json": orjson.dumps({"provider": {"router": provider}, **chosen}).decode()}


AGENTS = {
    "codex": Agent(
        lambda prompt: [
            *(str(NODE / "codex"), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            prompt,
        ],
        files=codex_settings,
        tool="exec_command",
        arguments={"cmd": "printf hello > note.txt"},
    ),
    "claude": Agent(
        lambda prompt: [
            str(NODE / "claude"),
            "-p",
            prompt,
            "--dangerously-skip-permissions",
            "--model",
            "claude-opus-5-5",
        ],
        environment=lambda router: {
            "ANTHROPIC_BASE_URL": router.url,
            "ANTHROPIC_AUTH_TOKEN": "x",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
        },
        tool="Write",
        arguments={"file_path": "{note}", "content": "hello"},
    ),
    "opencode": Agent(
        lambda prompt: [str(NODE / "opencode"), "run", prompt],
        files=opencode_settings,
        tool="write",
        arguments={"filePath": "{note}", "content": "hello"},
    ),
    "qwen": Agent(
        lambda prompt: [str(NODE / "qwen"), "--auth-type", "openai", "-y", "-p", prompt],
        environment=lambda router: {"OPENAI_BASE_URL": f"{router.url}/v1", "OPENAI_MODEL": "auto"},
        tool="write_file",
        arguments={"file_path": "{note}", "content": "hello"},
    ),
    "aider": Agent(
        lambda prompt: [
            *(str(AIDER / "aider"), "--model", "openai/auto", "--edit-format", "whole", "--no-git", "--yes-always"),
            *("--no-check-update", "--no-show-model-warnings", "--analytics-disable", "--message", prompt, "note.txt"),
        ],
        environment=lambda router: {"OPENAI_API_BASE": f"{router.url}/v1"},
    ),
}


class Place:
    """A router, an agent's home, and a folder that it works in."""

    def __init__(self, agent: Agent, router: RunningRouter, primary: FakeUpstream, folder: Path) -> None:
        self.agent, self.router, self.primary = agent, router, primary
        self.home, self.work = folder / "home", folder / "work"
        self.work.mkdir()
        subprocess.run(["git", "init", "-q", self.work], check=True)
        for name, text in {"": "", **agent.files(router)}.items():
            path = self.home / name
            (path if not name else path.parent).mkdir(parents=True, exist_ok=True)
            if name:
                path.write_text(text)

    @property
    def note(self) -> Path:
        return self.work / "note.txt"

    def start(self, prompt: str) -> subprocess.Popen[str]:
        environment = clean_environment(HOME=str(self.home), OPENAI_API_KEY="x", TERM="dumb", NO_COLOR="1")
        return subprocess.Popen(
            self.agent.command(prompt),
            cwd=self.work,
            env={**environment, **self.agent.environment(self.router)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, prompt: str) -> str:
        process = self.start(prompt)
        try:
            said, _ = process.communicate(timeout=_LIMIT_S)
        finally:
            process.kill()
        assert process.returncode == 0, said
        return said

    def model(self, request: Recorded) -> Reply:
        """What the primary says."""
        answer = self._answer(request.body)
        if not request.body.get("stream"):
            return Plain(answer)
        return Stream([*(event(part) for part in chunks_of(answer, 8)), DONE])

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        messages, tool = body["messages"], self.agent.tool
        if messages[-1]["role"] == "tool":
            return completion({"role": "assistant", "content": WRITTEN})
        if MARK not in str([message for message in messages if message["role"] == "user"]):
            return completion({"role": "assistant", "content": HELLO})
        if tool is None:
            return completion({"role": "assistant", "content": "note.txt\n```\nhello\n```\n"})
        if tool not in [given["function"]["name"] for given in body.get("tools") or ()]:
            # A background job of the agent's, which has no tools.
            return completion({"role": "assistant", "content": "A note"})
        filled = {name: value.replace("{note}", str(self.note)) for name, value in self.agent.arguments.items()}
        function = {"name": tool, "arguments": orjson.dumps(filled).decode()}
        call = {"id": "call_1", "type": "function", "function": function}
        return completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


@pytest.fixture(params=list(AGENTS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    name = request.param
    if not ((AIDER if name == "aider" else NODE) / name).exists():
        pytest.skip(f"{name.upper()} WAS NOT TRIED: it is not installed ('make test-clients' does that)")
    with fake_upstream() as primary, running_router(tmp_path / "router", PRIMARY_URL=primary.url) as router:
        place = Place(AGENTS[name], router, primary, tmp_path)
        primary.on(CHAT, place.model)
        yield place


def test_it_asks_a_question(place: Place) -> None:
    assert HELLO in place.run("Say hello.")


def test_it_edits_a_file(place: Place) -> None:
    said = place.run(f"{MARK}: write hello into note.txt")
    assert place.note.read_text().strip() == "hello", said


def test_where_it_is_aborted_the_call_ends(place: Place) -> None:
    place.primary.on(CHAT, Stream([chunk({"role": "assistant", "content": "begun"})], ending="hang"))
    process = place.start("Say hello.")
    try:
        assert eventually(lambda: place.primary.calls(CHAT), 60)
        call = place.primary.calls(CHAT)[-1]
        assert call.streaming.wait(20)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert call.gone.wait(10)
