"""GET /metrics, in Prometheus' text format, and GET /api/metrics, in JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST

from ai_router import __version__
from ai_router.observability.metrics import Metrics
from ai_router.observability.windows import (
    WINDOWS,
    ColdStart,
    by_model,
    by_route,
    cell_json,
    merge_cells,
    targets,
    uptime,
)
from ai_router.shared.all_windows import AllWindows
from ai_router.storage.usage_writer import UsageWriter

_DAY_S = WINDOWS["24h"]


def blueprint(
    metrics: Metrics,
    windows: AllWindows,
    cold_start: ColdStart,
    usage: UsageWriter[Any] | None,
    flush: Callable[[], None],
) -> Blueprint:
    """Both routes. ``usage``: None with TELEMETRY=off. ``flush`` has all requests that have ended counted."""
    blueprint = Blueprint("metrics", __name__)
    started = time.time()

    @blueprint.get("/metrics")
    def scrape() -> Response:
        flush()
        return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)

    @blueprint.get("/api/metrics")
    def report() -> Response:
        flush()
        now = time.time()
        # The database may not know yet that this process runs.
        runs = sorted([*(usage.recent_runs if usage else ()), (started, now)])
        day = merge_cells(windows.within(_DAY_S).values())
        return jsonify(
            object="metrics",
            version=__version__,
            at=round(now, 3),
            targets=[target.report(day) for target in targets(uptime(runs, now - _DAY_S, now))],
            cold_start=cold_start.as_json(),
            windows={name: _window(windows, seconds) for name, seconds in WINDOWS.items()},
        )

    return blueprint


def _window(windows: AllWindows, seconds: float) -> dict[str, Any]:
    cells = windows.within(seconds)
    return {
        "all": cell_json(merge_cells(cells.values())),
        "routes": {name: cell_json(cell) for name, cell in by_route(cells).items()},
        "models": {name: cell_json(cell) for name, cell in by_model(cells).items()},
    }
