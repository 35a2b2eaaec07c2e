"""Somebody asks, sees where it went and why, and stops what takes too long."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from playwright.sync_api import BrowserContext, Route, expect

from tests.browser.conftest import BrowserLab, Console
from tests.fakes.personas import CHAT, DONE, SEARCH, anew, chunk, classifies, completion, finds, says
from tests.fakes.process import worker_of
from tests.fakes.router import running_router
from tests.fakes.upstream import Hang, Plain, Slam, Stream


def words(count: int, *, gap: float, ending: str = "end") -> Stream:
    last = [chunk({}, "stop"), DONE] if ending == "end" else []
    return Stream([*(chunk({"content": f"w{n} "}) for n in range(count)), *last], gap=gap, ending=ending)


def test_an_answer_says_where_it_came_from_who_decided_and_what_it_cost(console: Console) -> None:
    console.open()
    console.ask(anew())
    answer = console.answer()
    expect(answer.locator(".markdown")).to_have_text("From the primary.")
    badge = console.page.locator(".badge")
    expect(badge).to_contain_text("local model")
    expect(badge).to_contain_text("classifier decided, 90\u00a0% sure")
    expect(badge).to_contain_text(re.compile(r"first word \d+\sms"))
    expect(badge).to_contain_text("0\u00a0USD")


def test_why_shows_the_reason_the_waterfall_and_the_speculation_that_was_confirmed(
    lab: BrowserLab, console: Console
) -> None:
    lab.classifier.on(CHAT, classifies("MODERATE", delay=0.4))
    console.open()
    console.ask(anew())
    console.answer()
    why = console.why()
    expect(why).to_contain_text("MODERATE")
    expect(why).to_contain_text("Classifier decides")
    expect(why).to_contain_text(re.compile(r"Speculation: begun at \S+\sms, confirmed at \S+\sm?s, saved \d+\sms"))


def test_a_speculation_that_lost_is_shown_as_cut(lab: BrowserLab, console: Console) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX", delay=0.4))
    lab.primary.on(CHAT, words(100, gap=0.05))
    console.open()
    console.ask(anew("a hard one"))
    expect(console.answer()).to_contain_text("From the cloud.")
    expect(console.page.locator(".badge")).to_contain_text("cloud")
    expect(console.why()).to_contain_text(re.compile(r"cut at \d+\sms, wasted"))


def test_a_search_is_announced_and_its_sources_are_named(lab: BrowserLab, console: Console) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    lab.xai.on(SEARCH, finds("It rains.", delay=1.0, urls=["https://example.org/paris"]))
    console.open()
    console.ask(anew("the weather in Paris"))
    expect(console.page.locator(".notice")).to_have_text("Searching the web")
    console.answer()
    source = console.page.get_by_role("navigation", name="Sources").get_by_role("link")
    expect(source).to_have_attribute("href", "https://example.org/paris")
    expect(source).to_have_attribute("rel", "noopener noreferrer nofollow")


def test_something_moves_before_the_first_word(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, Hang())
    console.open()
    console.ask(anew())
    expect(console.page.locator(".answer .skeleton").first).to_be_visible()
    console.page.get_by_role("button", name="Stop").click()
    console.answer("cancelled")


def test_a_busy_backend_is_waited_for_with_position_and_countdown(lab: BrowserLab, console: Console) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    busy = Plain(
        {"error": {"message": "slow down", "type": "rate_limit_error"}}, status=429, headers={"Retry-After": "2"}
    )
    lab.xai.on(CHAT, busy, says("From ", "the ", "cloud."))
    console.open()
    console.page.get_by_label("Who answers").select_option("xai")
    console.ask(anew())
    notice = console.page.locator(".notice")
    expect(notice).to_have_text(re.compile(r"Hold on: xai is busy. You are number 1 in the queue, about [12] s to go."))
    expect(console.answer()).to_contain_text("From the cloud.")


def test_stop_reaches_the_backend_and_what_came_is_kept(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, words(3, gap=0.01, ending="hang"))
    console.open()
    console.ask(anew())
    expect(console.page.locator(".answer .markdown")).to_contain_text("w2")
    console.page.get_by_role("button", name="Stop").click()
    assert lab.primary.wait_for(CHAT).gone.wait(10)
    answer = console.answer("cancelled")
    expect(answer).to_contain_text("w0 w1 w2")
    expect(answer).to_contain_text("Stopped. What had come is kept.")


def test_an_answer_that_breaks_off_says_so_keeps_what_came_and_can_be_tried_again(
    lab: BrowserLab, console: Console
) -> None:
    lab.primary.on(CHAT, words(3, gap=0.01, ending="reset"), says("All ", "of ", "it."))
    console.open()
    console.ask(anew())
    answer = console.answer("error")
    expect(answer).to_contain_text("w0 w1 w2")
    expect(answer.get_by_role("alert")).to_be_visible()
    console.page.get_by_role("button", name="Retry").click()
    expect(console.page.get_by_label("Your message", exact=True)).to_be_focused()
    expect(console.answer()).to_contain_text("All of it.")
    expect(console.page.locator(".asked")).to_have_count(1)


def test_a_backend_that_cannot_be_reached_is_said_in_words(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, Slam())
    lab.xai.on(CHAT, Slam())
    console.open()
    console.ask(anew())
    expect(console.answer("error").get_by_role("alert")).to_contain_text("primary")


def test_a_reload_in_the_middle_of_an_answer_loses_nothing(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, words(30, gap=0.1))
    console.open()
    console.ask(anew())
    expect(console.page.locator(".answer .markdown")).to_contain_text("w5")
    console.page.reload()
    expect(console.page.locator(".answer .markdown")).to_contain_text("w5")
    expect(console.answer().locator(".markdown")).to_have_text(" ".join(f"w{n}" for n in range(30)))
    assert len(lab.primary.calls(CHAT)) == 1


def test_two_tabs_see_the_same_answer_and_either_stops_it(
    lab: BrowserLab, console: Console, context: BrowserContext
) -> None:
    lab.primary.on(CHAT, words(200, gap=0.05))
    console.open()
    console.ask(anew())
    expect(console.page.locator(".answer .markdown")).to_contain_text("w3")
    other = Console(context.new_page(), lab.router.url)
    other.page.goto(console.page.url)
    expect(other.page.locator(".answer .markdown")).to_contain_text("w4")
    other.page.get_by_role("button", name="Stop").click()
    other.answer("cancelled")
    console.answer("cancelled")


def test_an_edited_message_gives_way_with_all_behind_it(lab: BrowserLab, console: Console) -> None:
    console.open()
    console.ask(anew("first"))
    console.answer()
    console.ask(anew("second"))
    expect(console.page.locator(".answer[data-status=complete]")).to_have_count(2)
    console.page.get_by_role("button", name="Edit").first.click()
    console.page.get_by_label("Your message, changed").fill("another first")
    console.page.get_by_role("button", name="Send anew").click()
    expect(console.page.locator(".answer[data-status=complete]")).to_have_count(1)
    assert [m["content"] for m in lab.primary.calls(CHAT)[-1].body["messages"] if m["role"] == "user"] == [
        "another first"
    ]
    console.page.reload()
    expect(console.page.locator(".asked")).to_have_count(1)


def test_a_model_can_be_chosen_by_name(lab: BrowserLab, console: Console) -> None:
    console.open()
    console.page.get_by_label("Who answers").select_option("xai")
    console.ask(anew())
    expect(console.answer()).to_contain_text("From the cloud.")
    expect(console.page.locator(".badge")).to_contain_text("chosen by name")
    assert lab.classifier.calls(CHAT) == []


def test_thoughts_are_folded(lab: BrowserLab, console: Console) -> None:
    portions = [chunk({"reasoning_content": "Let me think."}), chunk({"content": "Done."}), chunk({}, "stop"), DONE]
    lab.primary.on(CHAT, Stream(portions, gap=0.05))
    console.open()
    console.ask(anew())
    answer = console.answer()
    expect(answer.get_by_text("Let me think.")).to_be_hidden()
    answer.locator("summary").click()
    expect(answer.get_by_text("Let me think.")).to_be_visible()


def test_this_should_have_been_something_else_is_kept_as_an_example(console: Console) -> None:
    console.open()
    console.ask(anew())
    console.answer()
    console.why().get_by_role("button", name="cloud").click()
    expect(console.page.locator(".thanks")).to_contain_text("Kept as an example: this is cloud.")


def test_code_can_be_copied(lab: BrowserLab, console: Console, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    lab.primary.on(CHAT, says("Look:\n\n```python\n", "print('hi')\n", "```\n"))
    console.open()
    console.ask(anew())
    console.answer().locator(".code button").click()
    expect(console.page.locator(".code button")).to_have_text("Copied")
    assert console.page.evaluate("navigator.clipboard.readText()") == "print('hi')"


def test_what_a_model_writes_can_do_nothing(lab: BrowserLab, console: Console) -> None:
    wicked = (
        "<img src=x onerror=alert(1)> ![pixel](https://evil.example/p.png) [click](javascript:alert(1)) "
        "[page](https://evil.example/a) <script>alert(1)</script> <style>*{display:none}</style>\n\n"
        "<iframe src='https://evil.example'></iframe>\n\n```<b>x</b>\"><img src=x>\n1\n```"
    )
    lab.primary.on(CHAT, says(wicked))
    console.open()
    console.page.on("dialog", lambda dialog: console.problems.append(dialog.message))
    console.ask(anew())
    answer = console.answer()
    expect(answer.locator(".markdown a")).to_have_count(3)
    assert answer.locator(".markdown").locator("img, script, style, iframe, [onerror]").count() == 0
    links = [link.get_attribute("href") for link in answer.locator(".markdown a").all()]
    assert links == ["https://evil.example/p.png", None, "https://evil.example/a"]
    expect(answer).to_contain_text("<script>alert(1)</script>")


def test_the_first_message_names_the_thread_and_it_can_be_deleted(console: Console) -> None:
    console.open()
    name = anew("name of this one")
    console.ask(name)
    console.answer()
    threads = console.page.get_by_role("complementary", name="Conversations")
    expect(threads.get_by_role("link", name=name)).to_be_visible()
    console.page.on("dialog", lambda dialog: dialog.accept())
    threads.get_by_role("button", name=f"Delete {name}").click()
    expect(threads.get_by_role("link", name=name)).to_have_count(0)
    expect(console.page.get_by_role("heading", name="Ask something")).to_be_visible()


def test_a_thread_says_a_plain_answer_of_a_backend_too(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, Plain(completion("All at once.")))
    console.open()
    console.ask(anew())
    expect(console.answer()).to_contain_text("All at once.")


def test_everything_is_done_with_the_keyboard(console: Console) -> None:
    page = console.open()
    expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.get_by_label("Your message", exact=True).focus()
    page.keyboard.type("hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type(anew())
    page.keyboard.press("Enter")
    console.answer()
    expect(page.locator(".asked .said")).to_have_text(re.compile(r"hello\n"))
    page.locator(".badge").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".waterfall")).to_be_visible()


def test_another_conversation_opened_meanwhile_keeps_its_own_words(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, words(60, gap=0.05), says("The ", "other."))
    console.open()
    first = anew("first thread")
    console.ask(first)
    expect(console.page.locator(".answer .markdown")).to_contain_text("w3")
    console.page.get_by_role("link", name="New conversation").click()
    # The page changes a moment after the click; until then a question would go to the first thread.
    expect(console.page.get_by_role("heading", name="Ask something")).to_be_visible()
    console.ask(anew("second thread"))
    expect(console.answer()).to_contain_text("The other.")
    console.page.get_by_role("link", name=first).click()
    expect(console.answer().locator(".markdown")).to_have_text(" ".join(f"w{n}" for n in range(60)))


def test_a_tab_that_nobody_sees_holds_no_connection_for_what_is_live(console: Console) -> None:
    with console.page.expect_request("**/api/live") as asked:
        console.open()
    with console.page.expect_event("requestfailed", lambda request: request == asked.value):
        console.page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
    with console.page.expect_request("**/api/live"):
        console.page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: false });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )


def test_what_was_saved_is_the_time_until_the_decision_and_not_the_models_own(
    lab: BrowserLab, console: Console
) -> None:
    lab.classifier.on(CHAT, classifies("MODERATE", delay=0.1))
    lab.primary.on(CHAT, says("From ", "the ", "primary.", ttft=1.0))
    console.open()
    console.ask(anew())
    console.answer()
    told = console.why().locator(".lane-title").inner_text()
    begun, confirmed, saved = (int(number) for number in re.findall(r"(\d+)\sms", told))
    assert saved in range(confirmed - begun - 2, confirmed - begun + 3)


def test_a_search_that_a_speculation_lost_to_is_named(lab: BrowserLab, console: Console) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH", delay=0.2))
    lab.primary.on(CHAT, says("It ", "rains.", ttft=0.4))
    console.open()
    console.ask(anew("weather"))
    console.answer()
    expect(console.why()).to_contain_text("wasted: the web had to be searched first")


def test_stop_works_before_the_router_has_answered_anything(lab: BrowserLab, console: Console) -> None:
    lab.primary.on(CHAT, Hang())
    held: list[Route] = []
    page = console.open()
    page.route("**/messages/stream", lambda route: held.append(route))  # noqa: PLW0108 - Playwright wants a function of its own
    with page.expect_request("**/messages/stream"):
        console.ask(anew())
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Edit")).to_have_count(0)
    held[0].continue_()
    console.answer("cancelled")
    assert lab.primary.wait_for(CHAT).gone.wait(10)


def test_what_could_not_be_sent_stays_and_can_be_tried_again(lab: BrowserLab, console: Console) -> None:
    page = console.open()
    console.ask(anew("first"))
    console.answer()
    page.route("**/messages/stream", lambda route: route.abort())
    console.ask("not to be lost")
    expect(console.answer("error").get_by_role("alert")).to_contain_text("the router cannot be reached")
    with page.expect_response("**/messages?*"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_text("not to be lost")).to_be_visible()
    page.unroute("**/messages/stream")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".answer[data-status=complete]")).to_have_count(2)
    assert lab.primary.calls(CHAT)[-1].body["messages"][-1]["content"] == "not to be lost"


def test_a_conversation_stays_while_the_router_cannot_be_reached(console: Console) -> None:
    page = console.open()
    console.ask(anew())
    console.answer()
    page.route("**/api/threads/**", lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("alert")).to_contain_text("the router cannot be reached")
    expect(console.answer()).to_contain_text("From the primary.")


def test_threads_that_cannot_be_listed_are_not_said_to_be_none(console: Console) -> None:
    console.page.route("**/api/threads?*", lambda route: route.abort())
    page = console.open()
    expect(page.get_by_role("alert")).to_have_text("They cannot be listed: the router cannot be reached.")


def test_a_link_cannot_choose_what_is_asked(console: Console) -> None:
    page = console.open("#/chat/..%2F..%2Fv1%2Fmodels%3Fx=")
    expect(page.get_by_role("heading", name="Ask something")).to_be_visible()
    console.ask(anew())
    console.answer()
    page.goto(f"{console.url}/#/chat/%")
    expect(page.get_by_role("heading", name="Ask something")).to_be_visible()


def test_a_page_is_not_left_because_of_what_another_one_was_doing(console: Console) -> None:
    held: list[Route] = []
    page = console.open()
    page.route(
        "**/api/threads", lambda route: held.append(route) if route.request.method == "POST" else route.fallback()
    )
    with page.expect_request(lambda request: request.method == "POST"):
        console.ask(anew())
    page.get_by_role("link", name="Sessions").click()
    with page.expect_response("**/messages/stream"):
        held[0].continue_()
    expect(page).to_have_url(re.compile("#/sessions$"))


def test_older_messages_are_loaded_when_they_are_wanted(lab: BrowserLab, console: Console) -> None:
    page = console.open()
    console.ask(anew("the first of many"))
    console.answer()
    path = "/api/threads/" + page.url.rsplit("/", 1)[1] + "/messages"
    for number in range(110):
        page.request.post(
            console.url + path,
            data={"role": "assistant", "content": f"note {number}"},
            headers={"x-requested-with": "x"},
        )
    page.reload()
    expect(page.get_by_text("note 109")).to_be_visible()
    expect(page.get_by_text("note 3", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Older messages").click()
    expect(page.locator(".asked").get_by_text("the first of many")).to_be_visible()
    expect(page.get_by_role("button", name="Older messages")).to_have_count(0)


def test_an_answer_whose_process_died_is_shown_as_interrupted(
    lab: BrowserLab, context: BrowserContext, tmp_path: Path
) -> None:
    lab.primary.on(CHAT, words(3, gap=0.01, ending="hang"))
    with running_router(tmp_path, PRIMARY_URL=lab.primary.url, CLASSIFIER_MODE="off") as router:
        console = Console(context.new_page(), router.url)
        console.open()
        console.ask(anew())
        expect(console.page.locator(".answer .markdown")).to_contain_text("w2")
        os.kill(worker_of(router), signal.SIGKILL)
        answer = console.page.locator(".answer[data-status=interrupted]")
        expect(answer).to_be_visible(timeout=60_000)  # its lease lasts 15 s
        expect(console.page.get_by_role("button", name="Send")).to_be_visible()
