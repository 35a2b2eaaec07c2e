"""What the console asks the router for, without a browser."""

from __future__ import annotations

import gzip
import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Connect, Lab
from tests.fakes.personas import CHAT, SEARCH, anew, classifies, finds, says
from tests.fakes.process import holdings, worker_of
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, fake_upstream

KEYS = {"one": "key-of-the-first", "two": "key-of-the-second"}
ADMIN_KEY = "key-of-the-admin"
HUNDRED = 100


LIVE_THREADS = 3
"""Each part of the live view has one while anybody watches."""
SPARE = 2
"""Pools that answer the requests of this test may grow."""


def threads(router: RunningRouter) -> int:
    return holdings(worker_of(router)).threads


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(router: RunningRouter, path: str, headers: dict[str, str] | None = None) -> Any:
    status, _, body = router.get(path, headers)
    assert status == 200, body
    return json.loads(body)


class Live:
    """An open /api/live."""

    def __init__(self, router: RunningRouter, headers: dict[str, str] | None = None) -> None:
        self.connection = router.connection(timeout=20)
        self.connection.request("GET", "/api/live", headers=headers or {})
        self.response = self.connection.getresponse()
        assert self.response.status == 200

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.response.close()

    def next(self, name: str) -> Any:
        """The data of the next event of that name."""
        while True:
            line = self.response.readline().decode().strip()
            if line == f"event: {name}":
                return json.loads(self.response.readline().decode().removeprefix("data: "))

    def until(self, name: str, wanted: Any) -> Any:
        """The data of the first one of that name of which ``wanted`` is true."""
        while not wanted(found := self.next(name)):
            pass
        return found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningRouter, FakeUpstream]]:
    """A router with two keys and an admin's, and its primary."""
    with fake_upstream() as primary:
        settings = {
            "PRIMARY_URL": primary.url,
            "CLASSIFIER_MODE": "off",
            "AI_ROUTER_API_KEYS": ",".join(KEYS.values()),
            "AI_ROUTER_ADMIN_KEY": ADMIN_KEY,
        }
        with running_router(tmp_path_factory.mktemp("guarded"), **settings) as router:
            yield router, primary


# The page.


def test_the_page_and_its_files_need_no_key_and_bring_a_strict_policy(guarded: tuple[RunningRouter, Any]) -> None:
    router, _ = guarded
    status, headers, body = router.get("/", {"Accept-Encoding": "gzip"})
    page = gzip.decompress(body).decode()
    assert (status, headers["content-encoding"]) == (200, "gzip")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = re.search(r'src="(assets/[^"]+/app\.js)"', page)
    assert script
    status, headers, _ = router.get(f"/{script[1]}")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert headers["cache-control"] == "public, max-age=31536000, immutable"


def test_a_client_without_gzip_reads_it_too(lab: Lab) -> None:
    status, headers, body = lab.router.get("/")
    assert (status, body[:15]) == (200, b"<!doctype html>")
    assert "content-encoding" not in headers


def test_a_page_that_has_not_changed_is_not_sent_again(lab: Lab) -> None:
    etag = lab.router.get("/")[1]["etag"]
    assert lab.router.get("/", {"If-None-Match": etag})[0] == 304


def test_a_file_of_another_version_is_not_kept(lab: Lab) -> None:
    assert lab.router.get("/assets/0000000000000000/app.js")[1]["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/assets/x/nothing.js", "/assets/x/../vendored.toml", "/assets/app.js"])
def test_what_is_no_file_of_the_page_is_404(lab: Lab, path: str) -> None:
    assert lab.router.get(path)[0] == 404


def test_a_link_from_another_site_leads_to_the_page_and_to_nothing_of_anybodys(lab: Lab) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert lab.router.get("/", elsewhere)[0] == 200
    assert lab.router.get("/api/sessions", elsewhere)[0] == 403


def test_what_a_browser_sends_to_change_something_needs_a_header_that_no_form_has(lab: Lab) -> None:
    same_origin = {"Origin": lab.router.url, "Sec-Fetch-Site": "same-origin"}
    status, _, body = lab.router.chat(anew(), same_origin)
    assert (status, json.loads(body)["error"]["code"]) == (403, "header_missing")
    assert lab.router.chat(anew(), {**same_origin, "X-Requested-With": "anything"})[0] == 200
    assert lab.router.chat(anew(), {**same_origin, "Authorization": "Bearer of-an-sdk"})[0] == 200
    assert lab.router.chat(anew(), {"Sec-Fetch-Mode": "cors"})[0] == 200, "Node's fetch sends that, too"


# What happens now.


def test_live_tells_of_a_request_from_its_decision_to_its_end(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, Hang())
    with Live(lab.router) as live:
        assert live.next("requests") == {"requests": []}
        client = raw(lab.router.port)
        client.send_chat(stream=True, model="primary")
        (request,) = live.until(
            "requests", lambda found: found["requests"] and found["requests"][0]["phase"] == "asking"
        )["requests"]
        assert (request["route"], request["decided_by"], request["waiting"]) == ("primary", "explicit", None)
        client.leave()
        live.until("requests", lambda found: not found["requests"])


def test_live_tells_how_the_backends_are(lab: Lab) -> None:
    with Live(lab.router) as live:
        known = live.until("backends", lambda found: all(one["ok"] is not None for one in found["backends"]))
    by_name = {one["name"]: one for one in known["backends"]}
    assert by_name.keys() == {"classifier", "primary", "xai"}
    assert (by_name["primary"]["local"], by_name["primary"]["breaker"], by_name["primary"]["ok"]) == (
        True,
        "closed",
        True,
    )


def test_live_counts_the_day(lab: Lab) -> None:
    with Live(lab.router) as live:
        before = live.until("today", lambda found: "requests" in found)["requests"]
        lab.router.chat(anew())
        after = live.until("today", lambda found: found["requests"] > before)
    assert after["decided"] >= 1
    assert {target["name"] for target in after["targets"]} >= {"ttft_p95", "latency_p50", "cancel_p99"}


def test_live_says_no_word_of_what_is_said(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, Hang())
    client = raw(lab.router.port)
    client.send_chat(text="a-secret-word", stream=True, model="primary")
    lab.primary.wait_for(CHAT)
    with Live(lab.router) as live:
        assert "a-secret-word" not in json.dumps(live.until("requests", lambda found: found["requests"]))
    client.leave()


def test_a_key_sees_its_own_requests_and_the_admin_sees_and_stops_all(
    guarded: tuple[RunningRouter, FakeUpstream],
) -> None:
    router, primary = guarded
    primary.on(CHAT, Hang())
    connection = router.connection()
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    connection.request("POST", "/v1/chat/completions", body, {**bearer(KEYS["one"]), "X-Request-Id": "of-the-first"})
    with Live(router, bearer(KEYS["one"])) as own, Live(router, bearer(KEYS["two"])) as other:
        own.until("requests", lambda found: [one["request_id"] for one in found["requests"]] == ["of-the-first"])
        assert other.next("requests") == {"requests": []}
        assert cancel(router, "of-the-first", KEYS["two"]) == 404
        assert cancel(router, "of-the-first", ADMIN_KEY) == 200
        own.until("requests", lambda found: not found["requests"])
    assert connection.getresponse().status == 499
    connection.close()
    primary.on(CHAT, says("hi"))


def cancel(router: RunningRouter, request_id: str, key: str) -> int:
    connection = router.connection()
    connection.request("POST", f"/v1/requests/{request_id}/cancel", headers=bearer(key))
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_hundred_open_consoles_take_no_thread(lab: Lab) -> None:
    with ExitStack() as consoles:
        first = consoles.enter_context(Live(lab.router))
        first.until("backends", lambda found: all(one["ok"] is not None for one in found["backends"]))
        before = threads(lab.router)
        for _ in range(HUNDRED):
            consoles.enter_context(Live(lab.router)).next("backends")
        assert threads(lab.router) <= before + SPARE
        assert lab.router.chat(anew())[0] == 200
    assert eventually(lambda: threads(lab.router) <= before - LIVE_THREADS + SPARE)


def test_an_open_console_does_not_keep_the_router_from_stopping(tmp_path: Path, upstream: FakeUpstream) -> None:
    settings = {"PRIMARY_URL": upstream.url, "CLASSIFIER_MODE": "off", "REQUEST_TIMEOUT_S": "60"}
    with running_router(tmp_path, **settings) as router, Live(router) as live:
        live.next("backends")
        # Within the time that RunningRouter.stop allows, which is less than the timeout above.
        assert router.stop(signal.SIGTERM) == 0


def test_head_is_answered_without_a_stream(lab: Lab) -> None:
    connection = lab.router.connection()
    connection.request("HEAD", "/api/live")
    response = connection.getresponse()
    assert (response.status, response.getheader("content-type"), response.read()) == (200, "text/event-stream", b"")
    connection.close()


# How sure it was, and what left.


def test_doubt_has_the_decisions_and_replay_what_another_threshold_changes(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, says("hi"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, CLASSIFIER_MODE="off") as router:
        router.chat("What does an umbrella insurance cover?")
        found = eventually(lambda: (seen := ask(router, "/api/doubt"))["complete"] and seen["data"] and seen)
        (point,) = found["data"]
        assert (point["label"], point["guess"]["label"]) == ("MODERATE", "MODERATE")
        replay = ask(router, "/api/replay?threshold=0.5")
        assert (replay["sessions"], replay["moved"], replay["leaves"]) == (1, [], {"before": 0, "after": 0})


@pytest.mark.parametrize("threshold", ["", "2", "-1", "nan", "x"])
def test_a_threshold_that_is_none_is_refused(lab: Lab, threshold: str) -> None:
    status, _, body = lab.router.get(f"/api/replay?threshold={threshold}")
    assert (status, json.loads(body)["error"]["param"]) == (400, "threshold")


def test_each_call_that_left_is_listed_with_its_session(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    lab.xai.on(SEARCH, finds("It rains."))
    lab.router.chat(anew("weather"))
    newest = ask(lab.router, "/api/egress?limit=1")
    (call,) = newest["data"]
    assert (call["backend"], call["purpose"], call["route"]) == ("xai", "search", "enrich")
    assert call["bytes_sent"] > 0
    assert ask(lab.router, f"/api/sessions/{call['session_id']}")["route"] == "enrich"
    older = ask(lab.router, f"/api/egress?before={newest['next']}")
    assert call["id"] not in [one["id"] for one in older["data"]]


def test_a_page_of_calls_begins_where_another_ended_or_nowhere(lab: Lab) -> None:
    status, _, body = lab.router.get("/api/egress?before=x")
    assert (status, json.loads(body)["error"]["param"]) == (400, "before")


def test_a_stranger_sees_nothing(guarded: tuple[RunningRouter, Any]) -> None:
    for path in ("/api/live", "/api/doubt", "/api/replay?threshold=0.5", "/api/egress", "/api/threads"):
        assert guarded[0].get(path)[0] == 401, path


def test_a_reader_who_leaves_is_noticed_at_once(lab: Lab) -> None:
    with Live(lab.router) as live:
        live.next("backends")
        watched = threads(lab.router)
    assert eventually(lambda: threads(lab.router) <= watched - LIVE_THREADS + SPARE)
