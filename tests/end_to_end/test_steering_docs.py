"""The examples of docs/steering.md, as they stand there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_router.providers.catalogue import load_catalogue
from tests.end_to_end.conftest import XAI_KEY, well_behaved
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, running_router
from tests.fakes.upstream import fake_upstream

PAGE = Path(__file__).parents[2] / "docs/steering.md"
EXAMPLES = re.findall(r"^```console\n\$ (curl .*?)(?<!\\)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
TABLES = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


CHAINS = "[chains]"
"""In a table that would change what the other examples show."""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        folder = tmp_path_factory.mktemp("steering")
        (folder / "catalogue.toml").write_text("\n".join(table for table in TABLES if CHAINS not in table))
        settings = {
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "CATALOGUE_FILE": str(folder / "catalogue.toml"),
        }
        with running_router(folder, **settings) as router:
            environment = clean_environment(DATA_DIR=str(router.data), **settings)
            learned = subprocess.run([COMMAND, "learn"], check=True, env=environment, capture_output=True, text=True)
            assert learned.stdout.splitlines()[0] in PAGE.read_text()
            router.wait_for_log("Fast path: the sentence vectors are loaded")
            router.wait_for_log("Fast path: knows the routes code")
            yield router


@pytest.mark.parametrize("table", TABLES, ids=range(len(TABLES)))
def test_each_table_is_a_catalogue(table: str, tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(table)
    load_catalogue(tmp_path / "catalogue.toml")


def test_there_is_an_example_of_each() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_does_what_the_page_shows(router: RunningRouter, command: str, shown: str) -> None:
    ran = command.replace("http://127.0.0.1:8080", router.url).replace("curl ", "curl -s ", 1)
    output = subprocess.run(["sh", "-c", ran], check=True, capture_output=True, text=True).stdout.splitlines()
    missing = [line for line in shown.splitlines() if line not in output]
    assert not missing, "\n".join(output)
