"""GET and DELETE /v1/responses/{id}: answers of the Responses API that were kept."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify

from ai_router.storage.response_keeper import ResponseKeeper


def blueprint(keeper: ResponseKeeper) -> Blueprint:
    """Both routes. Each client has its own answers."""
    stored = Blueprint("stored_responses", __name__)

    @stored.get("/v1/responses/<response_id>")
    def retrieve(response_id: str) -> Response:
        """Raises ResponseNotFound."""
        return Response(keeper.get(response_id, g.client).response_json, content_type="application/json")

    @stored.delete("/v1/responses/<response_id>")
    def delete(response_id: str) -> Response:
        """Raises ResponseNotFound."""
        keeper.delete(response_id, g.client)
        return jsonify(id=response_id, object="response", deleted=True)

    return stored
