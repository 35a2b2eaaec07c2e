"""An owner's routes in the console: picked, shown, and said to have been the right one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.conftest import Console
from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import fake_upstream

ROUTE = """
[routes.code]
description = "program code"
backend = "primary"
examples = ["Write a Python function", "Fix this C bug", "Explain a regex", "Refactor a class", "A SQL query please"]
"""


@pytest.fixture
def router(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    folder = tmp_path_factory.mktemp("own-routes")
    (folder / "catalogue.toml").write_text(ROUTE)
    with fake_upstream() as primary:
        primary.on(CHAT, says("From ", "the ", "coder."))
        settings = {"PRIMARY_URL": primary.url, "CATALOGUE_FILE": str(folder / "catalogue.toml")}
        with running_router(folder, **settings) as router:
            yield router


def test_it_can_be_picked_and_named_as_what_a_request_should_have_been(
    router: RunningRouter, context: BrowserContext
) -> None:
    console = Console(context.new_page(), router.url)
    page = console.open()
    picker = page.get_by_label("Who answers")
    expect(picker.locator("option[value=code]")).to_have_text("code: program code")
    picker.select_option("code")
    console.ask("sort a list")
    expect(console.answer()).to_contain_text("From the coder.")
    expect(page.locator(".badge").last).to_contain_text("code")
    picker.select_option("auto")
    console.ask("what is a quine?")
    expect(page.locator(".answer[data-status=complete]")).to_have_count(2)
    panel = console.why()
    panel.get_by_role("button", name="code", exact=True).click()
    expect(panel.get_by_role("status")).to_have_text(
        'Kept as an example: this is code. The next "ai-router learn" learns from it.'
    )
    assert console.problems == []
