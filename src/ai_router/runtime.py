"""What of an application outlives a request: for the server, and to be ended with the application."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask

from ai_router.config import Settings
from ai_router.console.live import LiveView
from ai_router.dispatch.in_flight import InFlight
from ai_router.errors import ShuttingDown
from ai_router.http.timers import TimerThread
from ai_router.web import access

EXTENSION = "ai_router"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What outlives a request: for the server, and to be ended with the application."""

    timers: TimerThread
    policy: access.RequestPolicy
    closing: ExitStack
    reload: Callable[[], None]
    """Take over changed settings, or say in the log why not."""
    in_flight: InFlight = field(default_factory=InFlight)
    live: list[LiveView] = field(default_factory=list)
    draining: threading.Event = field(default_factory=threading.Event)


def pid_file(settings: Settings) -> Path:
    """Where the number of the router's first process stands while it serves."""
    return settings.data_dir / "ai-router.pid"


def runtime_of(app: Flask) -> Runtime:
    """What the server needs of an application of ``create_app``."""
    runtime: Runtime = app.extensions[EXTENSION]
    return runtime


def close_app(app: Flask) -> None:
    """End the application's threads, last made first; queued sessions and log lines are written. Idempotent."""
    runtime_of(app).closing.close()


def drain_app(app: Flask) -> None:
    """The server takes no more connections; /health/ready says so."""
    runtime_of(app).draining.set()


def end_live_views(app: Flask) -> None:
    """End the streams that only show what happens. Nothing is lost with them, and they would never end by
    themselves."""
    for view in runtime_of(app).live:
        view.close()


def stop_app(app: Flask) -> None:
    """Abort all requests, with an error that their clients can read. Their responses close a moment later."""
    drain_app(app)
    runtime_of(app).in_flight.abort_all(ShuttingDown("the router is being stopped"))
