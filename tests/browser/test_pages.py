"""The other pages: what is under way, what it cost, how sure the router was, and what was said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import BrowserContext, expect

from ai_router.storage.judgements import JudgementStore
from tests.browser.conftest import ADMIN_KEY, KEYS, BrowserLab, Console
from tests.fakes.personas import CHAT, SEARCH, anew, classifies, finds, says
from tests.fakes.router import RunningRouter
from tests.fakes.upstream import Hang, Plain

TITLE_JOB = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
    '### Output:\nJSON format: { "title": "your concise title here" }\n### Chat History:\n<chat_history>\nUSER: hi\n'
    "</chat_history>"
)


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as clients:
        yield clients


def test_now_says_the_day_in_a_sentence(lab: BrowserLab, console: Console) -> None:
    lab.router.chat(anew())
    console.open("#/now")
    sentence = console.page.get_by_test_id("sentence")
    expect(sentence).to_contain_text(re.compile(r"\d+\s% answered at home, \d+ of \d+ decisions in doubt"))
    expect(sentence).to_contain_text(re.compile(r"USD spent.*USD not spent", re.DOTALL))


def test_now_shows_what_is_under_way_and_stops_it(
    lab: BrowserLab, console: Console, clients: ThreadPoolExecutor
) -> None:
    lab.primary.on(CHAT, Hang())
    console.open("#/now")
    expect(console.page.get_by_text("Nothing at the moment.")).to_be_visible()
    asked = clients.submit(lab.router.chat, anew(), model="primary")
    row = console.page.locator("tbody tr")
    expect(row).to_contain_text("waits for the first word")
    expect(console.page.get_by_role("link", name="Now").locator(".count")).to_have_text("1")
    row.get_by_role("button", name="Stop").click()
    expect(console.page.get_by_text("Nothing at the moment.")).to_be_visible()
    assert lab.primary.wait_for(CHAT).gone.wait(10)
    assert asked.result(10)[0] == 499


def test_a_chat_uis_own_job_is_grey(lab: BrowserLab, console: Console, clients: ThreadPoolExecutor) -> None:
    lab.primary.on(CHAT, Hang())
    console.open("#/now")
    clients.submit(lab.router.chat, TITLE_JOB)
    row = console.page.locator("tr.grey")
    expect(row).to_contain_text("chat UI's own job")
    row.get_by_role("button", name="Stop").click()
    expect(row).to_have_count(0)


def test_who_waits_for_whom_is_shown_with_positions(
    lab: BrowserLab, console: Console, clients: ThreadPoolExecutor
) -> None:
    busy = Plain({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "3"})
    lab.xai.on(CHAT, busy, says("From ", "the ", "cloud."))
    console.open("#/now")
    asked = [clients.submit(lab.router.chat, anew(), model="xai")]
    expect(console.page.get_by_text(re.compile(r"waits for xai, number 1"))).to_be_visible()
    asked.append(clients.submit(lab.router.chat, anew(), model="xai"))
    expect(console.page.get_by_text(re.compile(r"waits for xai, number 2"))).to_be_visible()
    expect(console.page.locator(".card", has_text="xai").first).to_contain_text("is left alone: rate limited")
    assert {one.result(20)[0] for one in asked} == {200}


def test_money_draws_what_left_and_shows_its_words(lab: BrowserLab, console: Console) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    lab.xai.on(SEARCH, finds("It rains."))
    question = anew("what is the weather in Lyon")
    lab.router.chat(question)
    lab.router.chat(anew(), headers={"x-router-policy": "local-only"})
    console.open("#/money")
    house = console.page.get_by_role("img", name=re.compile("came from home, [1-9][0-9]* of them had to"))
    expect(house).to_contain_text("web searches")
    expect(house).to_contain_text("had to stay")
    call = console.page.locator(".calls > li").first
    expect(call).to_contain_text(re.compile(r"\d+.* out, .* in"))
    call.get_by_role("button", name="Show the words that left").click()
    expect(call.locator(".words")).to_contain_text(question)


def test_money_is_grouped_by_what_one_likes(lab: BrowserLab, console: Console) -> None:
    lab.router.chat(anew())
    page = console.open("#/money")
    expect(page.locator(".chart canvas")).to_be_visible()
    for name in ("Route", "Key", "Day", "Model"):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("thead th").first).to_have_text(name)
        expect(page.locator("tbody tr").first).to_be_visible()


def test_money_shows_how_home_does_beside_the_cloud(lab: BrowserLab, console: Console) -> None:
    judged = {"route": "primary", "local": "primary/nano", "cloud": "xai/grok", "judge": "openai/judge"}
    store = JudgementStore(f"sqlite:///{lab.router.data / 'usage.db'}")
    for number, winner in enumerate(("local", "local", "tie", "cloud")):
        begun = store.reserve({**judged, "session_id": f"s{number}"}, 0.02, 1.0, 400)
        assert begun is not None
        store.settle(begun, winner, contradicted=False, usd=0.01)
    store.close()
    page = console.open("#/money")
    section = page.get_by_role("region", name="Home beside the cloud")
    expect(section.locator("tbody td")).to_have_text(
        ["primary", "primary/nano", "xai/grok", "4", "2", "1", "1", re.compile(r"63\s% \(\d+\s% to \d+\s%\)")]
    )
    expect(page.get_by_text(re.compile("openai/judge prefers"))).to_be_visible()


def test_the_playground_decides_without_sending(lab: BrowserLab, console: Console) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    page = console.open("#/doubt")
    page.get_by_label("A prompt to try").fill(anew("prove it"))
    page.get_by_role("button", name="Decide").click()
    expect(page.locator(".verdict")).to_contain_text("classifier decided, 90\u00a0% sure")
    expect(page.locator(".verdict")).to_contain_text("Leaves the house")
    assert lab.primary.calls(CHAT) == lab.xai.calls(CHAT) == []


def test_sessions_are_searched_filtered_and_opened(lab: BrowserLab, console: Console) -> None:
    needle = anew("a needle of its own")
    lab.router.chat(needle)
    lab.router.chat(anew("hay"), model="xai")
    page = console.open("#/sessions")
    page.get_by_placeholder("Words that were said").fill("needle of its own")
    expect(page.locator(".sessions li")).to_have_count(1)
    page.get_by_label("Route").select_option("xai")
    expect(page.get_by_text("None that match.")).to_be_visible()
    page.get_by_label("Route").select_option("primary")
    page.locator(".sessions a").click()
    expect(page.get_by_text(needle)).to_be_visible()
    expect(page.locator(".turn.answer")).to_contain_text("From the primary.")
    expect(page.locator(".waterfall")).to_be_visible()


# Keys and organizations, on a router that asks for keys.


@pytest.fixture
def locked(shared_router_with_keys: RunningRouter, context: BrowserContext) -> Console:
    return Console(context.new_page(), shared_router_with_keys.url)


def give(console: Console, key: str, organization: str = "") -> None:
    console.page.get_by_label("Key", exact=True).fill(key)
    console.page.get_by_label("Organization", exact=True).fill(organization)
    console.page.get_by_role("button", name="Keep").click()


def test_a_wrong_key_is_told_and_asked_for_again(locked: Console) -> None:
    page = locked.open()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This router asks for a key.")
    give(locked, "wrong")
    expect(dialog).to_contain_text("This router does not know that key.")
    give(locked, KEYS["one"])
    expect(dialog).to_have_count(0)
    locked.ask(anew())
    expect(locked.answer()).to_contain_text("From the primary.")


def test_the_key_is_kept_until_the_tab_is_closed_and_nowhere_else(locked: Console, context: BrowserContext) -> None:
    page = locked.open()
    give(locked, KEYS["one"])
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    other = Console(context.new_page(), locked.url)
    other.open()
    expect(other.page.get_by_role("dialog")).to_be_visible()


def test_an_organization_sees_its_own_threads(locked: Console, context: BrowserContext) -> None:
    locked.open()
    give(locked, KEYS["one"], "acme")
    name = anew("only acme reads this")
    locked.ask(name)
    locked.answer()
    other = Console(context.new_page(), locked.url)
    other.open()
    give(other, KEYS["one"], "globex")
    expect(other.page.get_by_role("dialog")).to_have_count(0)
    expect(other.page.locator(".threads ul")).to_be_attached()
    expect(other.page.get_by_role("link", name=name)).to_have_count(0)
    other.page.goto(locked.page.url)
    expect(other.page.get_by_role("alert")).to_contain_text("no such thread")


def test_a_key_sees_its_own_sessions_and_the_admin_sees_all(locked: Console, context: BrowserContext) -> None:
    locked.open()
    give(locked, KEYS["one"])
    name = anew("a session of the first")
    locked.ask(name)
    locked.answer()
    for key, seen in ((KEYS["two"], 0), (ADMIN_KEY, 1)):
        other = Console(context.new_page(), locked.url)
        other.open("#/sessions")
        give(other, key)
        expect(other.page.get_by_role("dialog")).to_have_count(0)
        other.page.get_by_placeholder("Words that were said").fill(name)
        expect(other.page.get_by_text("None that match.")).to_have_count(1 - seen)
        expect(other.page.locator(".sessions li")).to_have_count(seen)
