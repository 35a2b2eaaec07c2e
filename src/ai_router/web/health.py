"""GET /health, /health/live and /health/ready. None of them needs a key."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from ai_router import __version__
from ai_router.dispatch.health import DEGRADED, HEALTHY, UNHEALTHY, HealthChecker
from ai_router.dispatch.in_flight import RequestLimit
from ai_router.observability.log import LogWriter
from ai_router.shared.start import Shared
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.usage_writer import UsageWriter


def blueprint(
    checker: HealthChecker,
    log: LogWriter,
    sessions: SessionLogger,
    usage: UsageWriter[Any] | None,
    limit: RequestLimit,
    shared: Shared,
    draining: threading.Event,
) -> Blueprint:
    """All three routes. ``/health`` checks the backends, at most once a second; ``live`` and ``ready`` call nothing.

    ``/health`` is 503 if no backend can answer. ``ready`` is 503 once ``draining`` is set: the server is stopping.
    """
    health = Blueprint("health", __name__)
    started = time.monotonic()

    @health.get("/health")
    def report() -> tuple[Response, int]:
        found = checker.report()
        unwritten = sessions.last_error or log.last_error or (usage and usage.last_error)
        alone = shared.client is not None and not shared.client.works
        status = DEGRADED if found.status == HEALTHY and (unwritten or alone) else found.status
        body = jsonify(
            status=status,
            version=__version__,
            uptime_s=round(time.monotonic() - started, 1),
            in_flight=limit.in_flight,
            backends={name: asdict(backend) for name, backend in found.backends.items()},
            sessions={"lost": sessions.lost, "last_error": sessions.last_error},
            log={"lost": log.lost, "last_error": log.last_error},
            usage=_usage_json(usage),
            shared=None if shared.client is None else {"ok": not alone, "processes": shared.peers.count},
        )
        return body, 503 if status == UNHEALTHY else 200

    @health.get("/health/live")
    def live() -> Response:
        return jsonify(status="live")

    @health.get("/health/ready")
    def ready() -> tuple[Response, int]:
        return (jsonify(status="draining"), 503) if draining.is_set() else (jsonify(status="ready"), 200)

    return health


def _usage_json(usage: UsageWriter[Any] | None) -> Mapping[str, Any] | None:
    """How the database of usage is; None with TELEMETRY=off. Its error may name hosts, which only the log may tell."""
    if usage is None:
        return None
    return {
        "ok": usage.last_error is None,
        "waiting": usage.waiting,
        "lost": usage.lost,
        "reopened": usage.reopened,
    }
