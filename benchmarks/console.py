"""The console, as a person meets it: pictures of its pages for the docs, and how long it lets people wait.

python -m benchmarks.console                 the figures: medians of five, the processor slowed down to a quarter
python -m benchmarks.console --pictures DIR  pictures of the pages: light, dark, and as wide as a phone
python -m benchmarks.console --serve         the lab, to look around in
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from benchmarks.console_lab import NEWS, PROOF, TITLE, UMBRELLA, ConsoleLab, console_lab, speaks, traffic
from tests.fakes.personas import CHAT
from tests.fakes.upstream import Plain

RUNS = 5
SLOW_DOWN = 4
LIMITS_MS = {"largest contentful paint": 2500.0, "skeleton": 300.0, "interaction to next paint": 200.0}
_WATCH = """
window.__seen = { lcp: 0, inp: 0, asked: 0, skeleton: 0 };
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.__seen.lcp = entry.startTime;
}).observe({ type: "largest-contentful-paint", buffered: true });
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.interactionId) window.__seen.inp = Math.max(window.__seen.inp, entry.duration);
  }
}).observe({ type: "event", durationThreshold: 16, buffered: true });
addEventListener("keydown", (event) => { if (event.key === "Enter") window.__seen.asked = event.timeStamp; }, true);
new MutationObserver(() => {
  const seen = window.__seen;
  if (seen.asked && !seen.skeleton && document.querySelector(".answer .skeleton")) {
    requestAnimationFrame(() => setTimeout(() => { seen.skeleton ||= performance.now() - seen.asked; }));
  }
}).observe(document, { subtree: true, childList: true });
"""


@contextmanager
def _browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or sys.exit("there is no Chromium: apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


def _say(page: Page, text: str) -> None:
    page.get_by_label("Your message", exact=True).fill(text)
    page.keyboard.press("Enter")


def _answered(page: Page, count: int) -> None:
    expect(page.locator(".answer[data-status=complete]")).to_have_count(count, timeout=30_000)


def _measured(browser: Browser, lab: ConsoleLab) -> dict[str, float]:
    """One visit, in milliseconds: the page opens, somebody asks, opens the reasons, and moves a threshold."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.add_init_script(_WATCH)
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOW_DOWN})
    page.goto(lab.router.url)
    expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
    page.get_by_label("Your message", exact=True).click()
    lcp = page.evaluate("window.__seen.lcp")
    page.keyboard.type(UMBRELLA)
    page.keyboard.press("Enter")
    _answered(page, 1)
    skeleton = page.evaluate("window.__seen.skeleton")
    page.locator(".badge").click()
    expect(page.locator(".waterfall")).to_be_visible()
    page.get_by_role("link", name="Doubt").click()
    slider = page.locator(".threshold input")
    expect(slider).to_be_visible(timeout=30_000)
    expect(page.locator(".change b")).to_be_visible(timeout=30_000)
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.get_by_role("link", name="Sessions").click()
    expect(page.locator(".sessions li").first).to_be_visible()
    page.wait_for_timeout(300)  # the browser reports interactions in its own time
    inp = page.evaluate("window.__seen.inp")
    context.close()
    return dict(zip(LIMITS_MS, (lcp, skeleton, inp), strict=True))


def measure() -> int:
    """Print the medians; 1 if one of them is over its limit."""
    with tempfile.TemporaryDirectory() as folder, console_lab(Path(folder)) as lab, _browser() as browser:
        traffic(lab.router)
        visits = [_measured(browser, lab) for _ in range(RUNS)]
    over = 0
    print(f"| of {RUNS} visits, processor slowed down {SLOW_DOWN} times | median | least | most | limit |")
    print("|---|---|---|---|---|")
    for name, limit in LIMITS_MS.items():
        values = [visit[name] for visit in visits]
        median = statistics.median(values)
        over += median > limit
        print(f"| {name} | {median:.0f} ms | {min(values):.0f} | {max(values):.0f} | {limit:.0f} |")
    return 1 if over else 0


# Pictures.

_PHONE_WIDTH = 390


def _chat(page: Page, _lab: ConsoleLab) -> None:
    _say(page, UMBRELLA)
    _answered(page, 1)
    _say(page, NEWS)
    _answered(page, 2)
    if page.viewport_size and page.viewport_size["width"] > _PHONE_WIDTH:
        page.locator(".badge").last.click()
        expect(page.locator(".waterfall")).to_be_visible()


def _now(page: Page, lab: ConsoleLab) -> None:
    """Two that wait for a busy cloud, one that is being answered, and a chat UI's own job."""
    lab.xai.on(
        CHAT, Plain({"error": {"message": "rate limit"}}, status=429, headers={"Retry-After": "9"}), speaks(0.02)
    )
    lab.primary.on(CHAT, speaks(0.4))
    for text, model in ((PROOF, "xai"), (PROOF, "xai"), (UMBRELLA, "primary"), (TITLE, "auto")):
        threading.Thread(
            target=lab.router.chat, args=(text,), kwargs={"model": model, "stream": True}, daemon=True
        ).start()
        page.wait_for_timeout(300)
    page.goto(f"{lab.router.url}/#/now")
    expect(page.locator("tbody tr")).to_have_count(4)
    expect(page.locator(".card.model, .cards .card").first).to_be_visible()
    page.wait_for_timeout(800)


def _money(page: Page, lab: ConsoleLab) -> None:
    page.goto(f"{lab.router.url}/#/money")
    expect(page.locator(".chart canvas")).to_be_visible()


def _doubt(page: Page, lab: ConsoleLab) -> None:
    page.goto(f"{lab.router.url}/#/doubt")
    expect(page.locator(".change b")).to_be_visible(timeout=30_000)
    page.get_by_label("A prompt to try").fill("Draft a migration plan from MySQL 5.7 to PostgreSQL without downtime.")
    page.get_by_role("button", name="Decide").click()
    expect(page.locator(".verdict")).to_be_visible()
    slider = page.locator(".threshold input")
    slider.fill("0.6")
    expect(page.locator("circle.moved").first).to_be_attached(timeout=10_000)


_SCENES: dict[str, Callable[[Page, ConsoleLab], None]] = {"chat": _chat, "money": _money, "doubt": _doubt, "now": _now}
_LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": _PHONE_WIDTH, "height": 844}, "color_scheme": "light", "device_scale_factor": 1.5},
}


def pictures(target: Path) -> int:
    """Write NAME-LOOK.png for each page and look."""
    target.mkdir(parents=True, exist_ok=True)
    with _browser() as browser:
        for look, options in _LOOKS.items():
            with tempfile.TemporaryDirectory() as folder, console_lab(Path(folder)) as lab:
                traffic(lab.router)
                for name, prepare in _SCENES.items():
                    context: BrowserContext = browser.new_context(**options, locale="en-GB", reduced_motion="reduce")
                    page = context.new_page()
                    page.goto(lab.router.url)
                    prepare(page, lab)
                    page.screenshot(path=target / f"{name}-{look}.png")
                    context.close()
    return 0


def serve() -> int:
    """Keep the lab until it is interrupted."""
    with tempfile.TemporaryDirectory() as folder, console_lab(Path(folder)) as lab:
        traffic(lab.router)
        print(f"the console: {lab.router.url}", flush=True)
        threading.Event().wait()
    return 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    if arguments.pictures:
        return pictures(arguments.pictures)
    return serve() if arguments.serve else measure()


if __name__ == "__main__":
    sys.exit(main())
