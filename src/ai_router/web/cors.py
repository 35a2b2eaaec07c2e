"""CORS: which pages of other origins may read the router's answers in a browser (CORS_ORIGINS).

A browser asks first (a preflight: OPTIONS, without any key) and sends the request itself only if the answer allows it.
So OPTIONS is answered before keys are looked at: web/access.py.

Source: the Fetch standard, https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from flask import Flask, Response, request

ANY = "*"
EXPOSED = (
    *("retry-after", "server-timing", "x-request-id", "x-session-id", "x-router-route", "x-router-model"),
    *("x-router-decided-by", "x-router-reason", "x-router-confidence", "x-router-speculation", "x-router-warning"),
)
"""Headers of an answer that a page may read, besides those that it always may."""
_METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")
_MAX_AGE_S = 7200
"""How long a browser may keep what it was told; Chromium's own limit."""


def init_app(app: Flask, origins: Collection[str]) -> None:
    """Let pages of these ``origins`` read what is answered; ``*``: all pages."""
    any_origin = ANY in origins

    @app.after_request
    def tell_browsers(response: Response) -> Response:
        origin = request.environ.get("HTTP_ORIGIN")
        if origin is None:
            return response
        if not any_origin:
            response.vary.add("Origin")
            if origin.lower() not in origins:
                return response
        response.headers["Access-Control-Allow-Origin"] = ANY if any_origin else origin
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED)
        if request.method == "OPTIONS":
            response.headers.update(_permission())
        return response


def _permission() -> dict[str, str]:
    """What a preflight is told: the page may send what it wants to. Whether it has a key is looked at then."""
    environ = request.environ
    told = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": str(_MAX_AGE_S)}
    wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if _HEADER_NAMES.fullmatch(wanted):
        told["Access-Control-Allow-Headers"] = wanted
    if environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK") == "true":
        # A page from the internet asks a router at home: Chromium wants that to be allowed by name.
        told["Access-Control-Allow-Private-Network"] = "true"
    return told
