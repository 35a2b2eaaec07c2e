"""Schemathesis asks a real router whatever docs/openapi.yaml allows, and much that it does not: no answer is a 5xx,
and each is what the description says."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, clean_environment, running_router
from tests.fakes.upstream import Plain, fake_upstream

ROOT = Path(__file__).parents[2]
SCHEMATHESIS = ROOT / ".venv-tools/bin/schemathesis"
NOT_THERE = "THE API WAS NOT FUZZED: .venv-tools is missing ('make test' makes it)"
PASSED_ON = """
[doors]
audio = "primary"
images = "primary"
rerank = "primary"
"""
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance", "unsupported_method"),
)
"""Not those that want every request refused that the description does not allow: fields that are not known are
forwarded, and what a backend makes of them is the backend's matter."""
KEY = "a-key-of-the-test-1"
_LIMIT_S = 240


def fuzz(router: RunningRouter, folder: Path, *options: str, checks: Sequence[str] = CHECKS) -> None:
    if not SCHEMATHESIS.exists():
        pytest.skip(NOT_THERE)
    command = [SCHEMATHESIS, "run", f"{router.url}/openapi.json", "--url", router.url, "--checks", ",".join(checks)]
    # Its events end when the client leaves.
    command += ["--exclude-path", "/api/live", "--request-timeout", "20", "--no-color", *options]
    environment = clean_environment(HOME=str(folder))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    log = "\n".join(router.log())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in log, log


@pytest.mark.parametrize("phases", ["examples,fuzzing", "coverage", "stateful"])
def test_whatever_is_asked_the_answer_is_one_that_is_described(tmp_path: Path, phases: str) -> None:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(PASSED_ON)
    with fake_upstream() as primary:
        primary.on(CHAT, says("Hello."))
        for path in ("/v1/audio", "/v1/images", "/v1/rerank"):
            primary.on(path, Plain({"results": []}))
        settings = {"PRIMARY_URL": primary.url, "CATALOGUE_FILE": str(catalogue)}
        with running_router(tmp_path, **settings) as router:
            fuzz(router, tmp_path, "--phases", phases, "--max-examples", "25")


def test_without_the_key_nothing_is_answered_but_what_says_so(tmp_path: Path) -> None:
    with fake_upstream() as primary:
        primary.on(CHAT, says("Hello."))
        with running_router(tmp_path, PRIMARY_URL=primary.url, AI_ROUTER_API_KEYS=KEY) as router:
            fuzz(router, tmp_path, "--phases", "fuzzing", "--max-examples", "5", checks=CHECKS[:3])
        assert not primary.calls(CHAT)
