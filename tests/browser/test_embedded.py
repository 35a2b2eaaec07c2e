"""What a newcomer does, on the model that comes with the router: no setting, no key, no backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.conftest import Console
from tests.fakes.router import RunningRouter, running_router

SLOW_MS = 180_000
"""The model answers in seconds; on a machine that does other things, too, it may take longer."""


@pytest.fixture(scope="module")
def router(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    with running_router(tmp_path_factory.mktemp("embedded")) as router:
        yield router


def test_somebody_asks_sees_why_stops_an_answer_and_finds_what_it_cost(
    router: RunningRouter, context: BrowserContext
) -> None:
    console = Console(context.new_page(), router.url)
    page = console.open()
    expect(page.locator(".suggestion").first).to_be_visible()
    console.ask("Say hello in five words.")
    expect(page.locator(".answer[data-status=complete] .markdown")).not_to_be_empty(timeout=SLOW_MS)
    why = console.why()
    expect(why).to_contain_text("reads like MODERATE")
    expect(why).to_contain_text("smollm2")
    console.ask("Write a very long story about a lighthouse keeper and his cat, with many chapters.")
    expect(page.locator(".answer .markdown").last).not_to_be_empty(timeout=SLOW_MS)
    page.get_by_role("button", name="Stop").click()
    expect(console.answer("cancelled")).to_contain_text("Stopped. What had come is kept.")
    page.get_by_role("link", name="Money").click()
    expect(page.locator(".sentence")).to_contain_text("0\u00a0USD spent on 2 requests")
    expect(page.get_by_text("None did.")).to_be_visible()
    page.get_by_role("link", name="Now").click()
    expect(page.get_by_test_id("sentence")).to_contain_text("100\u00a0% answered at home")
    assert console.problems == []
