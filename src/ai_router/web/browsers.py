"""Without keys: which requests of browsers are let in.

A router that asks for no key takes whoever reaches it for its owner. Web pages reach it, too: any page can have the
browser that shows it send a request to an address on that machine (cross-site request forgery), and a page whose own
name its owner makes point to 127.0.0.1 can read the answers (DNS rebinding). What browsers say of a request tells both
apart from the owner's: ``Origin`` and ``Sec-Fetch-Site`` (Fetch Metadata), which a page cannot change, and ``Host``,
the name under which the browser knows the router. Not the content type: curl sends JSON as a form. And what a browser
sends to change something must have a header that no form can have, whatever else it says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from flask import request

from ai_router.errors import BrowserRefused

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SAID_BY_BROWSERS = ("HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_DEST", "HTTP_SEC_FETCH_USER")
"""Headers by their names in a WSGI environment. Not sec-fetch-mode: Node's fetch sends it, too."""
_NOT_IN_FORMS = ("HTTP_X_REQUESTED_WITH", "HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_API_KEY")
"""A page needs the router's consent (CORS) for each of them, and gets it only if its origin is in CORS_ORIGINS."""


@dataclass(frozen=True, slots=True)
class BrowserHeaders:
    """What a request says of where it comes from; an empty text: it has no such header. ``scheme``: http or https.

    ``from_browser``: it has a header that only browsers send. ``writes``: its method may change something.
    ``deliberate``: it has a header that a page cannot have sent without asking the router first.
    """

    scheme: str
    host: str
    origin: str
    sec_fetch_site: str
    from_browser: bool = False
    writes: bool = False
    deliberate: bool = False


class BrowserRule:
    """Which requests of browsers are let in. ``names``: under which the router may be asked, besides addresses.
    ``origins``: those of pages that may ask it like its own (CORS_ORIGINS)."""

    def __init__(self, names: Iterable[str], origins: Iterable[str] = ()) -> None:
        self._names = frozenset(_normal_name(name) for name in ("localhost", *names))
        self._origins = frozenset(origins)
        self.known_hosts: set[str] = set()
        """Values of the header Host under which a request was let in."""

    def admit(self, headers: BrowserHeaders) -> None:
        """Raises BrowserRefused."""
        asked = _split(f"//{headers.host}")
        if headers.host and (asked is None or not self._may_be_asked_as(asked.hostname or "")):
            raise BrowserRefused(
                "this router needs no key, so that it answers under names that it knows only: add this one to "
                "ALLOWED_HOSTS, or set AI_ROUTER_API_KEYS",
                "host_not_allowed",
            )
        if headers.origin.lower() in self._origins:
            return
        if headers.sec_fetch_site.strip().lower() == "cross-site" or (
            headers.origin and not _is_same(headers.origin, headers.scheme, asked)
        ):
            raise BrowserRefused(
                "this router needs no key, so that it answers no page of another origin: set AI_ROUTER_API_KEYS, and "
                "have the page send one",
                "origin_not_allowed",
            )
        if headers.writes and headers.from_browser and not headers.deliberate:
            raise BrowserRefused(
                "a request of a browser that may change something needs a header that no form can send: "
                "x-requested-with, or the authorization of an SDK",
                "header_missing",
            )

    def _may_be_asked_as(self, name: str) -> bool:
        return _normal_name(name) in self._names or _is_address(name)


def _is_same(origin: str, scheme: str, asked: SplitResult | None) -> bool:
    """Whether an origin has the scheme, host and port under which the request was sent."""
    from_page = _split(origin)
    if from_page is None or asked is None or from_page.scheme != scheme:
        return False
    default = _DEFAULT_PORTS.get(scheme)
    return (_normal_name(from_page.hostname or ""), from_page.port or default) == (
        _normal_name(asked.hostname or ""),
        asked.port or default,
    )


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None where it has no host or no port that could be one."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.hostname else None


def _normal_name(name: str) -> str:
    """A name in lower case, without the dot that says that it is complete, and an address without brackets."""
    return name.strip().lower().removesuffix(".").strip("[]")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def browser_headers() -> BrowserHeaders:
    environ = request.environ
    return BrowserHeaders(
        request.scheme,
        environ.get("HTTP_HOST", ""),
        environ.get("HTTP_ORIGIN", ""),
        environ.get("HTTP_SEC_FETCH_SITE", ""),
        from_browser=any(name in environ for name in SAID_BY_BROWSERS),
        writes=request.method not in _SAFE_METHODS,
        deliberate=any(name in environ for name in _NOT_IN_FORMS),
    )
