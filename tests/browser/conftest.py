"""The console in a real Chromium, before a real router whose backends are scripted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.end_to_end.conftest import lab_settings
from tests.fakes.personas import CHAT, SEARCH, classifies, finds, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = "THE CONSOLE WAS NOT TRIED IN A BROWSER: there is no Chromium (Debian: apt-get install chromium)"
KEYS = {"one": "key-of-the-first", "two": "key-of-the-second"}
ADMIN_KEY = "key-of-the-admin"
# Chromium refuses to run as root with its sandbox. It looks nothing up: there is no network in a test.
_ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

expect.set_options(timeout=15_000)


@dataclass
class BrowserLab:
    """The backends, and the router."""

    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream
    router: RunningRouter

    def reset(self) -> None:
        for fake in (self.classifier, self.primary, self.xai):
            fake.reset()
        self.classifier.on(CHAT, classifies("MODERATE"))
        self.primary.on(CHAT, says("From ", "the ", "primary."))
        self.xai.on(CHAT, says("From ", "the ", "cloud."))
        self.xai.on(SEARCH, finds("It rains in Paris."))
        self.xai.on("/v1/models", Plain({"object": "list", "data": []}))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def shared_lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserLab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        classifier.on(CHAT, classifies("MODERATE"))
        settings = lab_settings(classifier, primary, xai)
        with running_router(tmp_path_factory.mktemp("lab"), **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            yield BrowserLab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared_lab: BrowserLab) -> BrowserLab:
    shared_lab.reset()
    return shared_lab


@pytest.fixture(scope="package")
def shared_router_with_keys(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    with fake_upstream() as primary:
        primary.on(CHAT, says("From ", "the ", "primary."))
        settings = {
            "PRIMARY_URL": primary.url,
            "CLASSIFIER_MODE": "off",
            "AI_ROUTER_API_KEYS": ",".join(KEYS.values()),
            "AI_ROUTER_ADMIN_KEY": ADMIN_KEY,
        }
        with running_router(tmp_path_factory.mktemp("keys"), **settings) as router:
            yield router


@dataclass
class Console:
    """A tab with the console in it. What goes wrong in it is kept, and where it asks."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda told: told.type == "error" and self.problems.append(told.text))
        self.page.on("request", lambda request: self.asked.add(request.url))

    def open(self, place: str = "") -> Page:
        self.page.goto(f"{self.url}/{place}")
        return self.page

    def ask(self, text: str) -> None:
        self.page.get_by_label("Your message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def answer(self, status: str = "complete") -> Locator:
        """The last answer, once it is that far."""
        found = self.page.locator(f".answer[data-status={status}]").last
        expect(found).to_be_visible()
        return found

    def why(self) -> Locator:
        """The panel below the last answer, with its waterfall."""
        self.page.locator(".badge").last.click()
        panel = self.page.locator(".why").last
        expect(panel.locator(".waterfall")).to_be_visible()
        return panel


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB")
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def console(lab: BrowserLab, context: BrowserContext) -> Iterator[Console]:
    """A tab on the lab's router. In the end nothing must have gone wrong in it, and nobody else been asked."""
    console = Console(context.new_page(), lab.router.url)
    yield console
    # A refused request, and a connection that a test has broken, are told there, too.
    assert [p for p in console.problems if not re.search(r"Failed to load resource|net::ERR", p)] == []
    assert {url for url in console.asked if not url.startswith((lab.router.url, "data:"))} == set()
