"""Real clients in an environment of their own, and the routers that they ask."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_router.client_apis.completions import API as COMPLETIONS
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.client_apis.responses import API as RESPONSES
from tests.clients.backends import speaks, speaks_chat
from tests.fakes.personas import CHAT
from tests.fakes.router import RunningRouter, clean_environment, running_router
from tests.fakes.upstream import FakeUpstream, fake_upstream

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients/bin/python"
SCRIPTS = Path(__file__).parent / "scripts"
NOT_THERE = "THE REAL CLIENTS WERE NOT TRIED: .venv-clients is missing ('make test' makes it)"
_LIMIT_S = 120

RunClient = Callable[..., str]


@pytest.fixture(scope="session")
def run_client(tmp_path_factory: pytest.TempPathFactory) -> RunClient:
    """Runs a script with a real client in it; fails if that does."""
    if not PYTHON.exists():
        pytest.skip(NOT_THERE)
    home = tmp_path_factory.mktemp("home")

    def run(script: str, router: RunningRouter, *arguments: str) -> str:
        environment = clean_environment(HOME=str(home), OPENAI_API_KEY="x", ANTHROPIC_API_KEY="x")
        done = subprocess.run(
            [PYTHON, SCRIPTS / f"{script}.py", router.url, *arguments],
            env={**environment, "PATH": f"{PYTHON.parent}{os.pathsep}{environment.get('PATH', '')}"},
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def _backend(kind: str, fake: FakeUpstream) -> None:
    fake.on(CHAT, speaks_chat)
    if kind == "speaks all":
        for api in (RESPONSES, MESSAGES, COMPLETIONS):
            fake.on(api.path, speaks(api))


@pytest.fixture(scope="package", params=["speaks chat", "speaks all"])
def router(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    """A router whose primary speaks chat completions only, so that all is translated; and one that speaks all."""
    with fake_upstream() as fake:
        _backend(request.param, fake)
        with running_router(tmp_path_factory.mktemp("clients"), PRIMARY_URL=fake.url) as router:
            yield router


@pytest.fixture(scope="package")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    """The router as it is after its two commands: on the embedded model."""
    with running_router(tmp_path_factory.mktemp("embedded")) as router:
        yield router
