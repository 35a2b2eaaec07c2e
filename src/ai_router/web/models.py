"""GET /v1/models and /v1/models/{id}: what a client may name as ``model``."""

from __future__ import annotations

import time
from datetime import date

from flask import Blueprint, Response, jsonify

from ai_router.providers.names import listing, resolve
from ai_router.providers.registry import Registry


def blueprint(registry: Registry) -> Blueprint:
    """Both routes, in the shape of OpenAI's API. The list is made once: it does not change while the router runs.

    One model is found by each name that a request may have, aliases and retired names included.
    """
    models = Blueprint("models", __name__)
    created = int(time.time())

    def shown(model: str, owned_by: str) -> dict[str, object]:
        return {"id": model, "object": "model", "created": created, "owned_by": owned_by}

    listed = {entry.id: shown(entry.id, entry.owned_by) for entry in listing(registry)}

    @models.get("/v1/models")
    def list_models() -> Response:
        return jsonify(object="list", data=list(listed.values()))

    @models.get("/v1/models/<path:model>")
    def retrieve_model(model: str) -> Response:
        """Raises ModelNotFound."""
        if model not in listed:
            found = resolve(registry, model, date.today())
            return jsonify(shown(model, found.route if found.route in registry.clouds else "ai-router"))
        return jsonify(listed[model])

    return models
