"""POST /v1/requests/{request_id}/cancel."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, g, jsonify

from ai_router.dispatch.in_flight import InFlight
from ai_router.errors import NotFound
from ai_router.observability.metrics import ResilienceMetrics


def blueprint(in_flight: InFlight, metrics: ResilienceMetrics) -> Blueprint:
    """The route. A client reaches its own requests only: those made with the same key."""
    cancelling = Blueprint("cancel", __name__)

    @cancelling.post("/v1/requests/<request_id>/cancel")
    def cancel(request_id: str) -> Response:
        found = in_flight.cancel(request_id, g.client)
        if found is None:
            raise NotFound(f"no request '{request_id[:128]}' is under way; it may have ended")
        cancelled, fresh = found
        for request in cancelled if fresh else ():
            metrics.cancelled(request.phase)
        return jsonify(id=request_id, object="request.cancelled", cancelled=[asdict(request) for request in cancelled])

    return cancelling
