"""GET /openapi.json: what the router serves, for programs. It needs no key, and holds nothing of anybody's.

The file is made of docs/openapi.yaml by ``make openapi``.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from flask import Blueprint, Response, request


def blueprint() -> Blueprint:
    """The route."""
    openapi = Blueprint("openapi", __name__)
    body = files("ai_router.web").joinpath("openapi.json").read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    @openapi.get("/openapi.json")
    def describe() -> Response:
        headers = {"cache-control": "no-cache", "etag": etag}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status=304, headers=headers)
        return Response(body, 200, headers, content_type="application/json")

    return openapi
