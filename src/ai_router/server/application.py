"""gunicorn, set up for streams: a few request threads, one event loop, no restarts in the middle of an answer."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from ai_router.app import create_app
from ai_router.config import Settings, SettingsError
from ai_router.observability.metrics import forget_worker, share_metrics
from ai_router.observability.windows import process_started
from ai_router.reloading import check_reload
from ai_router.runtime import pid_file
from ai_router.server.connection import Limits
from ai_router.server.worker import Worker, close_worker
from ai_router.telemetry import shared_folder

_IDLE_S = 75
_LAST_WORDS_S = 5
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes its file there itself, unlinked at once


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master process. On SIGHUP its workers take over changed settings, and stay; gunicorn would replace
    them."""

    def handle_hup(self) -> None:
        if self.app.reload():
            self.kill_workers(signal.SIGHUP)


class Server(BaseApplication):  # type: ignore[misc]
    """``run`` serves until it is told to stop. ``when_ready`` runs when it listens, ``after_fork`` in every worker."""

    def __init__(
        self, settings: Settings, *, when_ready: Callable[[], None], after_fork: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._when_ready = when_ready
        self._after_fork = after_fork
        self._pid_file = pid_file(settings)
        self._born = process_started()
        self._shared = shared_folder(settings)
        if self._shared is not None:
            share_metrics(self._shared)
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings; the reason beside each that is not plain."""
        settings = self._settings
        chosen: dict[str, Any] = {
            "bind": _bind(settings.host, settings.port),
            "workers": settings.workers,
            # Each worker also listens for itself: see listeners_beside.
            "reuse_port": settings.workers > 1,
            "worker_class": _worker_class(settings),
            "threads": settings.threads,
            "keepalive": _IDLE_S,
            # No request outlives its own deadline, so a stop may wait for the longest stream.
            "graceful_timeout": int(settings.drain_s + settings.request_timeout_s) + _LAST_WORDS_S,
            # A restart after so many requests would cut streams.
            "max_requests": 0,
            "accesslog": None,
            "errorlog": "-",
            "loglevel": "warning",
            "proc_name": "ai-router",
            # gunicorn's heartbeat touches a file on each turn of its loop: in memory, where there is such a place.
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
            # The control socket is a door that nobody here uses.
            "control_socket_disable": True,
            "when_ready": lambda _server: self._begin(),
            "post_fork": lambda _server, _worker: self._after_fork(),
            "worker_exit": lambda _server, worker: close_worker(worker),
            "child_exit": lambda _server, worker: self._forget(worker.pid),
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            _Arbiter(self).run()
        finally:
            self._pid_file.unlink(missing_ok=True)

    def reload(self) -> bool:
        """Check the settings as they stand now, for workers that are yet to start; whether they can work."""
        try:
            self._settings = check_reload(self._settings).settings
        except SettingsError as problem:
            print(f"ai-router: not reloaded, all stays as it was: {problem}", file=sys.stderr, flush=True)  # noqa: T201
            return False
        return True

    def _begin(self) -> None:
        self._pid_file.write_text(f"{os.getpid()}\n")
        self._when_ready()

    def load(self) -> Flask:
        """The application, made in the worker: its threads would not survive the fork."""
        return create_app(self._settings, self._born)

    def _forget(self, pid: int) -> None:
        if self._shared is not None:
            forget_worker(pid, self._shared)


def _worker_class(settings: Settings) -> type[Worker]:
    limits = Limits(
        threads=settings.threads,
        backend_threads=settings.request_threads,
        waiting=settings.request_threads,
        wait_s=settings.queue_budget_s,
        connections=settings.max_connections,
        max_body=settings.max_body_mb << 20,
        max_bodies=settings.max_bodies_mb << 20,
        headers_s=min(10.0, settings.body_timeout_s),
        body_s=settings.body_timeout_s,
        write_s=settings.write_timeout_s,
        total_s=settings.request_timeout_s,
        idle_s=_IDLE_S,
    )
    return type(
        "Worker", (Worker,), {"limits": limits, "stream_keepalive_s": settings.keepalive_s, "drain_s": settings.drain_s}
    )


def _bind(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
