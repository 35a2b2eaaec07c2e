"""The console is for everybody: with a keyboard, on a phone, in the dark, and without waiting for things to jump."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import BrowserLab, Console
from tests.fakes.personas import CHAT, anew, classifies, says

PAGES = ("chat", "now", "money", "doubt", "sessions")
SERIOUS = ("serious", "critical")
SHIFTS = """
window.__shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.__shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(params=[("light", 1280), ("dark", 1280), ("light", 390)], ids=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, lab: BrowserLab) -> Iterator[Page]:
    """A tab in which axe may run: the page's own policy would not let it."""
    scheme, width = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 820}, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce"
    )
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:150]}" for one in found if one["impact"] in SERIOUS]


def fill(lab: BrowserLab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"), classifies("MODERATE"))
    lab.xai.on(CHAT, says("# Title\n\n", "- [x] a\n- b\n\n```js\nlet a;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"))
    for _ in range(2):
        assert lab.router.chat(anew(), stream=True)[0] == 200


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(lab: BrowserLab, page: Page, name: str) -> None:
    fill(lab)
    page.goto(f"{lab.router.url}/#/{name}")
    expect(page.locator("main h1, main .messages, main .sentence").first).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)
    assert serious(page) == []


def test_axe_finds_nothing_serious_in_an_answer_with_all_that_belongs_to_it(lab: BrowserLab, page: Page) -> None:
    fill(lab)
    console = Console(page, lab.router.url)
    console.open()
    page.get_by_label("Who answers").select_option("xai")
    console.ask(anew())
    expect(console.answer().locator("table")).to_be_visible()
    console.why()
    assert serious(page) == []


def test_nothing_is_wider_than_the_page(lab: BrowserLab, page: Page) -> None:
    fill(lab)
    for name in PAGES:
        page.goto(f"{lab.router.url}/#/{name}")
        expect(page.locator(".skeleton")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


@pytest.mark.parametrize("name", PAGES)
def test_nothing_jumps_while_a_page_loads(lab: BrowserLab, console: Console, name: str) -> None:
    fill(lab)
    console.page.add_init_script(SHIFTS)
    console.open(f"#/{name}")
    expect(console.page.locator(".skeleton")).to_have_count(0)
    assert console.page.evaluate("window.__shift") < 0.1


def test_nothing_jumps_while_an_answer_comes(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, says(*(f"word{n} " for n in range(150)), gap=0.005))
    console.page.add_init_script(SHIFTS)
    console.open()
    console.ask(anew())
    console.answer()
    assert console.page.evaluate("window.__shift") < 0.1
