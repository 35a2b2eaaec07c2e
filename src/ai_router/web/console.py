"""GET / and /assets/...: the console's page and its files. They need no key, and hold nothing of anybody's.

What the page shows it asks for with the key that it was given: see /api/live, /api/threads and the others.
"""

from __future__ import annotations

import gzip

from flask import Blueprint, Response, request

from ai_router.console.assets import PAGE, Asset, Assets
from ai_router.errors import NotFound

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Only what DOMPurify has let through becomes a part of the page.
        "require-trusted-types-for 'script'",
        "trusted-types dompurify 'allow-duplicates'",
    )
)
_SAFETY = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def blueprint(assets: Assets) -> Blueprint:
    """The routes."""
    console = Blueprint("console", __name__)

    @console.get("/")
    def page() -> Response:
        """The page. It is asked for anew each time, and it is small."""
        return _response(_found(assets, PAGE), "no-cache", f'"{assets.version}"')

    @console.get("/assets/<version>/<path:name>")
    def asset(version: str, name: str) -> Response:
        """A file of the page. ``version``: of all files; browsers do not keep a file of another one."""
        kept = "public, max-age=31536000, immutable" if version == assets.version else "no-store"
        return _response(_found(assets, name), kept, f'"{assets.version}"')

    return console


def _found(assets: Assets, name: str) -> Asset:
    found = assets.find(name)
    if found is None:
        raise NotFound(f"the console has no file '{name[:100]}'")
    return found


def _response(asset: Asset, cache_control: str, etag: str) -> Response:
    headers = {**_SAFETY, "cache-control": cache_control, "etag": etag, "vary": "accept-encoding"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.body, 200, {**headers, "content-encoding": "gzip"}, content_type=asset.media_type)
    return Response(gzip.decompress(asset.body), 200, headers, content_type=asset.media_type)
