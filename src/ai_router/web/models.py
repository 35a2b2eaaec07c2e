"""GET /v1/models and /v1/models/{id}: what a client may name as ``model``, and what is known of it."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from flask import Blueprint, Response, g, jsonify

from ai_router.dispatch.offered_models import offered_models
from ai_router.dispatch.primary_facts import PrimaryFacts
from ai_router.providers.catalogue import Model
from ai_router.providers.names import ResolvedModel, listing, resolve
from ai_router.providers.registry import Registry

_WAIT_S = 1.0
"""For the primary to tell what it can do; the next time it is known."""


def blueprint(registry: Registry, primary_facts: PrimaryFacts) -> Blueprint:
    """Both routes, in the shape of OpenAI's API.

    The list has what the asker's key may name. One model is found by each name that a request may have, aliases and
    retired names included.
    """
    models = Blueprint("models", __name__)
    created = int(time.time())

    def shown(model: str, owned_by: str, named: ResolvedModel) -> dict[str, Any]:
        entry = {"id": model, "object": "model", "created": created, "owned_by": owned_by}
        if (route := registry.catalogue.routes.get(named.route)) is not None:
            entry["description"] = route.description
        return entry | _known(_facts(registry, named))

    @models.get("/v1/models")
    def list_models() -> Response:
        primary_facts.wait(_WAIT_S)
        today = date.today()
        return jsonify(
            object="list",
            data=[
                shown(entry.id, entry.owned_by, resolve(registry, entry.id, today))
                for entry in offered_models(registry, g.key, today)
            ],
        )

    @models.get("/v1/models/<path:model>")
    def retrieve_model(model: str) -> Response:
        """Raises ModelNotFound."""
        primary_facts.wait(_WAIT_S)
        named = resolve(registry, model, date.today())
        owner = named.route if named.route in registry.clouds else "ai-router"
        listed = {entry.id: entry.owned_by for entry in listing(registry, date.today())}
        return jsonify(shown(model, listed.get(model, owner), named))

    return models


def _facts(registry: Registry, named: ResolvedModel) -> Model:
    """What is known of the model that a name stands for. Of ``auto`` the primary's: clients size what they send by it,
    and a larger conversation would have to leave the house."""
    backend = registry.clouds.get(named.route, registry.primary)
    return backend.facts(named.model or backend.model)


def _known(facts: Model) -> dict[str, Any]:
    """The fields, by the names that clients look for: ``max_model_len`` is vLLM's, ``context_length`` OpenRouter's."""
    sizes = {} if facts.context is None else {"max_model_len": facts.context, "context_length": facts.context}
    return sizes if facts.capabilities is None else sizes | {"capabilities": sorted(facts.capabilities)}
