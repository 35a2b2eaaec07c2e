"""The catalogue against what a provider says it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from ai_router.errors import UpstreamFailed
from ai_router.http.request import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.providers.errors import error_from_response
from ai_router.providers.registry import Backend

_LIMIT_S = 15.0
_MAX_BODY = 16 << 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models of the catalogue that the provider does not list, and models that it lists and the catalogue lacks."""

    missing: Sequence[str]
    unknown: Sequence[str]


def served_models(session: BackendSession, backend: Backend) -> frozenset[str]:
    """The ids of a provider's GET /models. Raises UpstreamError."""
    upstream_request = UpstreamRequest(
        source=backend.source,
        method="GET",
        url=backend.url("/models"),
        timeouts=Timeouts(connect=_LIMIT_S, total=_LIMIT_S, idle=_LIMIT_S),
        headers=backend.headers,
        secret=backend.key,
    )
    response = session.fetch(upstream_request, _MAX_BODY)
    if response.status != 200:
        raise error_from_response(response.status, response.headers, response.body, upstream_request)
    try:
        entries = orjson.loads(response.body)["data"]
        # Gemini's begin with models/.
        return frozenset(str(entry["id"]).removeprefix("models/") for entry in entries)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UpstreamFailed("its list of models is of no shape that is known", upstream_request.source) from None


def compare(backend: Backend, served: frozenset[str]) -> Comparison:
    """What differs. Presets are no models and are not listed; a dated name stands for the one without the date."""
    models = {} if backend.provider is None else backend.provider.models
    named = {name for name, facts in models.items() if facts.send_as == "model"} | ({backend.model} - {"", *models})
    dated = {name for name in named if any(found.startswith(f"{name}-") for found in served)}
    return Comparison(sorted(named - served - dated), sorted(served - named))
