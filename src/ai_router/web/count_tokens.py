"""POST /v1/messages/count_tokens: how many tokens a request of Anthropic's API has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Blueprint, Response, g, jsonify, request

from ai_router.client_apis.messages import API
from ai_router.errors import ClientGone, RouterError
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.providers.names import resolve
from ai_router.providers.registry import Backend, Registry
from ai_router.token_estimates import estimated_tokens
from ai_router.web.access import ON_DISCONNECT
from ai_router.web.chat import ChatSettings
from ai_router.web.chat import read_other_api_request as read
from ai_router.web.responses import on_response_closed

log = logging.getLogger(__name__)

PATH = f"{API.path}/count_tokens"
_ENDPOINT = "/messages/count_tokens"
_TIMEOUTS = Timeouts(connect=2.0, total=5.0, idle=5.0, first_byte=None)
_MAX_ANSWER_BYTES = 65_536
_SENT = ("messages", "system", "tools", "tool_choice", "thinking")


def blueprint(client: UpstreamClient, registry: Registry, settings: ChatSettings) -> Blueprint:
    """The route. A local backend counts: the one that is named, else the primary. Where it cannot, and for a model of a
    cloud, which is not sent the words for that, the count is an estimate, and says so."""
    counting = Blueprint("count_tokens", __name__)

    @counting.post(PATH)
    def count_tokens() -> Response:
        """The count. Raises RouterError for a request that is wrong."""
        asked = read(settings, API, lambda _api, payload, _client: ({**payload, "max_tokens": 1}, {}))
        settings.admit(0)
        named = resolve(registry, asked.model, asked.timestamp.date())
        backend = registry.clouds.get(named.route, registry.primary)
        call = UpstreamCall(local_only=bool(asked.local_only))
        if (on_disconnect := request.environ.get(ON_DISCONNECT)) is not None:
            on_response_closed().callback(on_disconnect(lambda: call.abort(ClientGone())))
        fields = {} if asked.client_form is None else asked.client_form.fields
        counted = _ask(client, backend, named.model or backend.model, fields, call)
        if counted is not None:
            return jsonify(input_tokens=counted)
        chars = asked.total_chars + (len(orjson.dumps(fields["tools"])) if "tools" in fields else 0)
        response = jsonify(input_tokens=estimated_tokens(chars))
        response.headers["x-router-warning"] = "an estimate: 4 characters a token"
        return response

    return counting


def _ask(
    client: UpstreamClient, backend: Backend, model: str, fields: Mapping[str, Any], call: UpstreamCall
) -> int | None:
    """The backend's count; None if it has none."""
    if not backend.local or not backend.may_speak(API.name):
        # A count is not worth sending the conversation to a cloud.
        return None
    upstream_request = UpstreamRequest(
        declared_local=backend.declared_local,
        source=backend.source._replace(model=model),
        method="POST",
        url=backend.url(_ENDPOINT),
        timeouts=_TIMEOUTS,
        secret=backend.key,
        headers={**backend.headers, "X-Request-Id": g.request_id},
        body=orjson.dumps({"model": model, **{name: fields[name] for name in _SENT if name in fields}}),
    )
    try:
        response = client.fetch(upstream_request, call, _MAX_ANSWER_BYTES)
        payload = orjson.loads(response.body) if response.status == 200 else {}
    except (RouterError, orjson.JSONDecodeError) as problem:
        log.info("Tokens not counted: %s", problem)
        return None
    count = payload.get("input_tokens") if isinstance(payload, dict) else None
    return count if isinstance(count, int) else None
