"""Which requests of browsers a router without keys lets in."""

from __future__ import annotations

import pytest

from ai_router.errors import BrowserRefused
from ai_router.web.browsers import BrowserHeaders, BrowserRule

RULE = BrowserRule(["192.168.1.5", "router.lan"])


def refused(host: str = "127.0.0.1:8080", origin: str = "", site: str = "", scheme: str = "http") -> str | None:
    """The code of the refusal; None: it is let in."""
    try:
        RULE.admit(BrowserHeaders(scheme, host, origin, site))
    except BrowserRefused as refusal:
        return refusal.code
    return None


def headers(**changes: bool) -> BrowserHeaders:
    return BrowserHeaders("http", "127.0.0.1:8080", "http://127.0.0.1:8080", "same-origin", **changes)


def test_a_browser_that_changes_something_must_send_a_header_that_no_form_can() -> None:
    with pytest.raises(BrowserRefused) as refusal:
        RULE.admit(headers(from_browser=True, writes=True))
    assert refusal.value.code == "header_missing"


@pytest.mark.parametrize(
    "changes",
    [
        {"from_browser": True, "writes": True, "deliberate": True},
        {"from_browser": True, "writes": False},
        {"from_browser": False, "writes": True},
    ],
)
def test_everything_else_needs_no_such_header(changes: dict[str, bool]) -> None:
    RULE.admit(headers(**changes))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LOCALHOST:8080",
        "localhost.:8080",
        "127.0.0.1",
        "10.1.2.3:80",
        "[::1]:8080",
        "router.lan",
        "Router.LAN:9999",
        "192.168.1.5:8080",
    ],
)
def test_it_answers_under_addresses_and_names_that_it_knows(host: str) -> None:
    assert refused(host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "xlocalhost",
        "router.lan.evil.example",
        "[::1",
        "localhost:port",
        "user@evil.example",
        "localhost@evil.example",
        "/",
        "127.1",
    ],
)
def test_it_does_not_answer_under_any_other(host: str) -> None:
    assert refused(host=host) == "host_not_allowed"


@pytest.mark.parametrize(
    ("host", "origin", "scheme"),
    [
        ("localhost:8080", "http://localhost:8080", "http"),
        ("localhost", "http://localhost", "http"),
        ("localhost:80", "http://localhost", "http"),
        ("router.lan", "https://router.lan", "https"),
        ("router.lan:443", "https://ROUTER.lan", "https"),
        ("[::1]:8080", "http://[::1]:8080", "http"),
    ],
)
def test_its_own_pages_may_ask(host: str, origin: str, scheme: str) -> None:
    assert refused(host=host, origin=origin, scheme=scheme, site="same-origin") is None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:3000",
        "https://localhost:8080",
        "http://127.0.0.1:8080",
        "http://localhost:8080.evil.example",
        "http://localhost",
        "file://",
        "chrome-extension://abcdef",
        "http://localhost:99999",
        "localhost:8080",
    ],
)
def test_no_page_of_another_origin_may(origin: str) -> None:
    assert refused(host="localhost:8080", origin=origin) == "origin_not_allowed"


def test_what_a_browser_says_was_sent_across_sites_is_refused_whatever_else_it_says() -> None:
    assert refused(site="cross-site") == "origin_not_allowed"
    assert refused(host="localhost:8080", origin="http://localhost:8080", site="Cross-Site") == "origin_not_allowed"
    assert [refused(site=site) for site in ("none", "same-origin", "same-site", "")] == [None] * 4


def test_the_refusal_names_the_setting() -> None:
    with pytest.raises(BrowserRefused, match="ALLOWED_HOSTS"):
        RULE.admit(BrowserHeaders("http", "evil.example", "", ""))
    with pytest.raises(BrowserRefused, match="AI_ROUTER_API_KEYS"):
        RULE.admit(BrowserHeaders("http", "localhost", "https://evil.example", ""))
