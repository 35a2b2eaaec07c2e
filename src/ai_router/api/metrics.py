"""GET /metrics, for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ai_router.telemetry.metrics import RoutingMetrics


def blueprint(metrics: RoutingMetrics) -> Blueprint:
    """The route."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def scrape() -> Response:
        return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)

    return blueprint
