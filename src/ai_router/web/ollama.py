"""Ollama's endpoints about models, for clients that ask for them before they chat: /api/tags, /api/show...

Source: docs/api.md of Ollama. What only Ollama's own server can know (digests, sizes) is empty.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

from flask import Blueprint, Response, g, jsonify

from ai_router.client_apis.ollama import model_in
from ai_router.dispatch.offered_models import offered_models
from ai_router.dispatch.primary_facts import PrimaryFacts
from ai_router.errors import InvalidRequest
from ai_router.providers.names import resolve
from ai_router.providers.registry import AUTO, Registry
from ai_router.web.chat import ChatSettings
from ai_router.web.inputs import json_fields

SPOKEN_VERSION = "0.12.6"
"""The version of Ollama whose API this is: clients compare it with what they need."""
_WAIT_S = 1.0
_ARCHITECTURE = "router"
_NO_TIME = "1970-01-01T00:00:00Z"


def blueprint(registry: Registry, primary_facts: PrimaryFacts, settings: ChatSettings) -> Blueprint:
    """The routes that ask no backend."""
    ollama = Blueprint("ollama", __name__)

    @ollama.get("/api/version")
    def version() -> Response:
        return jsonify(version=SPOKEN_VERSION)

    @ollama.get("/api/tags")
    def tags() -> Response:
        return jsonify(models=[_entry(model.id) for model in offered_models(registry, g.key, date.today())])

    @ollama.get("/api/ps")
    def running() -> Response:
        return jsonify(models=[_entry(AUTO)])

    @ollama.post("/api/show")
    def show() -> Response:
        """Raises ModelNotFound."""
        fields = json_fields(settings.max_body, settings.max_values)
        model = model_in(fields) or model_in({"model": fields.get("name")})
        if model is None:
            raise InvalidRequest("'model' is required", "model", code="missing_required_parameter")
        primary_facts.wait(_WAIT_S)
        named = resolve(registry, model, date.today())
        backend = registry.clouds.get(named.route, registry.primary)
        facts = backend.facts(named.model or backend.model)
        info: dict[str, Any] = {"general.architecture": _ARCHITECTURE}
        if facts.context is not None:
            info[f"{_ARCHITECTURE}.context_length"] = facts.context
        # What is not known is tried, and so it is offered.
        able = facts.capabilities if facts.capabilities is not None else {"tools", "vision"}
        return jsonify(
            details=_DETAILS,
            model_info=info,
            capabilities=["completion", *sorted(able & {"tools", "vision"})],
            modelfile="",
            parameters="",
            template="",
            modified_at=_NO_TIME,
        )

    return ollama


_DETAILS = {
    "parent_model": "",
    "format": "",
    "family": _ARCHITECTURE,
    "families": [_ARCHITECTURE],
    "parameter_size": "",
    "quantization_level": "",
}


def _entry(model: str) -> dict[str, Any]:
    digest = hashlib.sha256(model.encode()).hexdigest()
    return {"name": model, "model": model, "modified_at": _NO_TIME, "size": 0, "digest": digest, "details": _DETAILS}
