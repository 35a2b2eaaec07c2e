"""GET /v1/models and /v1/models/{id}: what a client may name as ``model``."""

from __future__ import annotations

import time

from flask import Blueprint, Response, jsonify

from ai_router.errors import ModelNotFound
from ai_router.providers.names import listing, nearest
from ai_router.providers.registry import Registry


def blueprint(registry: Registry) -> Blueprint:
    """Both routes, in the shape of OpenAI's API. The list is made once: it does not change while the router runs."""
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
