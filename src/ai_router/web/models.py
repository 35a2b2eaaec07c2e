"""GET /v1/models."""

from __future__ import annotations

import time

from flask import Blueprint, Response, jsonify

from ai_router.errors import ModelNotFound
from ai_router.providers.names import listing, nearest
from ai_router.providers.registry import Registry


def blueprint(registry: Registry) -> Blueprint:
    """What a client may name as ``model``, in OpenAI's shape."""
    models = Blueprint("models", __name__)
    created = int(time.time())
    listed = {
        entry.id: {"id": entry.id, "object": "model", "created": created, "owned_by": entry.owned_by}
        for entry in listing(registry)
    }

    @models.get("/v1/models")
    def list_models() -> Response:
        return jsonify(object="list", data=list(listed.values()))

    @models.get("/v1/models/<path:model>")
    def retrieve_model(model: str) -> Response:
        if model not in listed:
            raise ModelNotFound(model, nearest(registry, model))
        return jsonify(listed[model])

    return models
