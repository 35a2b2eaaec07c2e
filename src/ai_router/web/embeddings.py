"""POST /v1/embeddings, and the same in Ollama's API: /api/embed and, older, /api/embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response, g, jsonify, request

from ai_router.client_apis.ollama import model_in
from ai_router.dispatch.embeddings import Embeddings, EmbeddingsRequest
from ai_router.dispatch.permission import check_route
from ai_router.errors import ClientGone, InvalidRequest
from ai_router.http.calls import UpstreamCall
from ai_router.providers.registry import AUTO
from ai_router.token_estimates import estimated_tokens
from ai_router.web.access import ON_DISCONNECT
from ai_router.web.chat import ChatSettings, arrival_of
from ai_router.web.inputs import json_fields
from ai_router.web.paths import DEPLOYMENT
from ai_router.web.policy import why_local_only
from ai_router.web.requests import as_fragments, model_of
from ai_router.web.responses import on_response_closed


def blueprint(embeddings: Embeddings, settings: ChatSettings) -> Blueprint:
    """The routes."""
    made = Blueprint("embeddings", __name__)

    def answer(model: str, inputs: Any, fields: Mapping[str, Any], field: str = "input") -> dict[str, Any]:
        check_route("embeddings", g.key)
        settings.admit(estimated_tokens(len(orjson.dumps(inputs))))
        sent = {name: value for name, value in fields.items() if name != "metadata"}
        asked = EmbeddingsRequest(model, _inputs(inputs, field), as_fragments(sent))
        why = why_local_only(arrival_of(settings), {**fields, "input": inputs})
        return embeddings.answer(asked, partial(_new_call, local_only=bool(why)), g.request_id)

    @made.post("/v1/embeddings")
    def openai() -> Response:
        """Raises RouterError."""
        payload = json_fields(settings.max_body, settings.max_values)
        rest = {name: value for name, value in payload.items() if name not in ("model", "input")}
        return jsonify(answer(request.environ.get(DEPLOYMENT) or model_of(payload), payload.get("input"), rest))

    @made.post("/api/embed")
    def ollama() -> Response:
        """Raises RouterError."""
        payload = json_fields(settings.max_body, settings.max_values)
        found = answer(model_in(payload) or AUTO, payload.get("input"), _metadata_of(payload))
        vectors = [entry["embedding"] for entry in found["data"]]
        counted = (found.get("usage") or {}).get("prompt_tokens") or 0
        return jsonify(
            model=payload.get("model"),
            embeddings=vectors,
            total_duration=0,
            load_duration=0,
            prompt_eval_count=counted,
        )

    @made.post("/api/embeddings")
    def older_ollama() -> Response:
        """Raises RouterError."""
        payload = json_fields(settings.max_body, settings.max_values)
        found = answer(model_in(payload) or AUTO, payload.get("prompt"), _metadata_of(payload), "prompt")
        return jsonify(embedding=found["data"][0]["embedding"])

    return made


def _metadata_of(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """What Ollama's API does not have, and the router does."""
    return {"metadata": payload["metadata"]} if "metadata" in payload else {}


def _new_call(*, local_only: bool) -> UpstreamCall:
    """A call that ends with the client's connection."""
    call = UpstreamCall(local_only=local_only)
    watch: Callable[[Callable[[], object]], Callable[[], object]] | None = request.environ.get(ON_DISCONNECT)
    if watch is not None:
        on_response_closed().callback(watch(lambda: call.abort(ClientGone())))
    return call


def _inputs(given: Any, field: str) -> list[Any]:
    """What is to be embedded, as a list. ``field``: where it stands. Raises InvalidRequest."""
    if given is None:
        raise InvalidRequest(f"'{field}' is required", field, code="missing_required_parameter")
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise InvalidRequest(f"'{field}' must be a text, or an array that is not empty", field, code="invalid_type")
    # One array of token ids is one input.
    return [given] if all(isinstance(token, int) for token in given) else given
