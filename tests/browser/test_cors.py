"""A page of another origin in a real Chromium, which asks the router with its key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.fakes.personas import CHAT, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import fake_upstream

ASK = """async ([url, key, stream]) => {
  try {
    const response = await fetch(url + "/v1/chat/completions", {
      method: "POST",
      headers: {"content-type": "application/json", authorization: "Bearer " + key, "x-stainless-lang": "js"},
      body: JSON.stringify({model: "primary", stream, messages: [{role: "user", content: "hi"}]}),
    });
    const names = ["x-router-route", "x-request-id", "server-timing", "x-router-reason"];
    const headers = names.map((name) => response.headers.get(name));
    return {status: response.status, headers, text: await response.text()};
  } catch (error) {
    return {refused: String(error)};
  }
}"""


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a chat of somebody else's</title>")

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is for the tests."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def page(browser: Browser, site: str) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(site)
    yield page
    page.close()


@pytest.fixture(scope="module", params=["named", "unnamed"])
def asked(request: pytest.FixtureRequest, site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Whether the page's origin is in CORS_ORIGINS, and the router."""
    origins = site if request.param == "named" else "https://chat.example"
    with fake_upstream() as primary:
        primary.on(CHAT, says("From ", "home."))
        settings = {"PRIMARY_URL": primary.url, "AI_ROUTER_API_KEYS": "key-one", "CORS_ORIGINS": origins}
        folder: Path = tmp_path_factory.mktemp("cors")
        with running_router(folder, **settings) as router:
            yield request.param == "named", router


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_that_is_named_reads_the_answer_and_its_headers(
    asked: tuple[bool, RunningRouter], page: Page, stream: bool
) -> None:
    is_named, router = asked
    answer = page.evaluate(ASK, [router.url, "key-one", stream])
    if not is_named:
        assert "TypeError" in answer["refused"]
        return
    assert answer["status"] == 200
    assert "home." in answer["text"]
    assert answer["headers"][0] == "primary"
    assert all(answer["headers"])


def test_a_page_with_a_wrong_key_reads_the_error(asked: tuple[bool, RunningRouter], page: Page) -> None:
    is_named, router = asked
    answer = page.evaluate(ASK, [router.url, "another-key", False])
    assert answer["status"] == 401 if is_named else "TypeError" in answer["refused"]
