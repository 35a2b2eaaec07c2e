"""'ai-router reload' and SIGHUP: what changes in a running router, and what a bad file changes: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, DONE, anew, chunk, says
from tests.fakes.process import workers
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Stream, fake_upstream

WITH_ALIAS = '[aliases]\n"fast-one" = "primary"\n'


@dataclass
class Lab:
    router: RunningRouter
    primary: FakeUpstream
    xai: FakeUpstream
    folder: Path
    environment: dict[str, str]

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.toml"

    def reload(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "reload"], check=False, env=self.environment, cwd=self.folder, capture_output=True, text=True
        )

    def knows(self, model: str) -> bool:
        """Whether each of its workers takes this model's name."""
        return all(self.router.chat(anew(), model=model)[0] == 200 for _ in range(6))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with fake_upstream() as primary, fake_upstream() as xai:
        primary.on(CHAT, says("from ", "the ", "primary"))
        xai.on(CHAT, says("from ", "xai"))
        (tmp_path / "catalogue.toml").write_text("")
        (tmp_path / ".env").write_text("QUEUE_SIZE=5\n")
        settings = {
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "CATALOGUE_FILE": str(tmp_path / "catalogue.toml"),
            "FAST_ROUTING": "off",
            "WORKERS": "2",
        }
        with running_router(tmp_path, **settings) as router:
            environment = clean_environment(DATA_DIR=str(router.data), **settings)
            assert eventually(lambda: len(workers(router)) == 2)
            yield Lab(router, primary, xai, tmp_path, environment)


def test_a_changed_catalogue_is_taken_over_by_all_workers_and_nobody_is_cut_off(lab: Lab) -> None:
    assert lab.router.chat(anew(), model="fast-one")[0] == 404
    lab.primary.on(CHAT, Stream([chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"), DONE], gap=0.5))
    client = RawClient(lab.router.port)
    client.send_chat(text=anew(), stream=True, model="primary")
    client.read_until(b'"a"')
    before = workers(lab.router)
    lab.catalogue.write_text(WITH_ALIAS)
    told = lab.reload()
    assert (told.returncode, told.stderr) == (0, "")
    assert client.read_until(DONE)
    client.leave()
    lab.primary.on(CHAT, says("well"))
    assert eventually(lambda: lab.knows("fast-one"))
    assert workers(lab.router) == before
    lab.router.wait_for_log(r"Reloaded: \d+ providers, \d+ models")


def test_another_chain_is_followed(lab: Lab) -> None:
    assert lab.router.chat(anew(), model="auto")[1]["x-router-route"] == "primary"
    lab.catalogue.write_text('[chains]\nmoderate = ["xai"]\n')
    assert lab.reload().returncode == 0
    assert eventually(lambda: lab.router.chat(anew())[1]["x-router-model"] == "grok-4.7")


def test_a_bad_file_changes_nothing_and_says_why(lab: Lab) -> None:
    lab.catalogue.write_text(WITH_ALIAS)
    assert lab.reload().returncode == 0
    assert eventually(lambda: lab.knows("fast-one"))
    lab.catalogue.write_text("[chains]\nmoderate = 3\n")
    refused = lab.reload()
    assert refused.returncode == 2
    assert "CATALOGUE_FILE" in refused.stderr
    # The signal itself is as safe.
    os.kill(lab.router.process.pid, signal.SIGHUP)
    output = lab.folder / "stderr.txt"
    assert eventually(lambda: "not reloaded, all stays as it was: CATALOGUE_FILE" in output.read_text())
    assert lab.knows("fast-one")


def test_settings_of_the_list_are_taken_over_and_others_are_named(lab: Lab) -> None:
    (lab.folder / ".env").write_text("QUEUE_SIZE=7\nTHREADS=80\nUNKNOWN_MODEL=auto\n")
    assert lab.reload().returncode == 0
    lab.router.wait_for_log(r"Changed, but only a new start takes it over: THREADS")
    assert eventually(lambda: lab.knows("nobody-knows-this"))


def test_a_worker_that_is_started_later_has_what_was_taken_over(lab: Lab) -> None:
    lab.catalogue.write_text(WITH_ALIAS)
    assert lab.reload().returncode == 0
    assert eventually(lambda: lab.knows("fast-one"))
    before = workers(lab.router)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: len(set(workers(lab.router)) - set(before)) == 2)
    assert eventually(lab.router.answers)
    assert lab.knows("fast-one")


def test_where_no_router_runs_the_command_says_so(tmp_path: Path) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path))
    said = subprocess.run(
        [COMMAND, "reload"], check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert said.returncode == 2
    assert "no router runs here" in said.stderr
    (tmp_path / "ai-router.pid").write_text("999999999\n")
    again = subprocess.run(
        [COMMAND, "reload"], check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert "is of one that has ended" in again.stderr


def test_the_models_list_has_new_models(lab: Lab) -> None:
    lab.catalogue.write_text('[providers.xai.models]\n"grok-of-tomorrow" = { context = 1000 }\n')
    assert lab.reload().returncode == 0

    def listed() -> bool:
        models = orjson.loads(lab.router.get("/v1/models")[2])["data"]
        return any("grok-of-tomorrow" in model["id"] for model in models)

    assert eventually(lambda: all(listed() for _ in range(6)))
