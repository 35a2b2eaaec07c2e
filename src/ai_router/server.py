"""gunicorn, set up for streams: one process, many threads, no restarts in the middle of an answer."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from ai_router.app import close_app, create_app
from ai_router.settings import Settings
from ai_router.upstream.alarms import Alarms

_KEEPALIVE_S = 75
_LAST_WORDS_S = 5
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes its file there itself, unlinked at once


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread with two mendings.

    The headers of a request have a deadline: a client that drips them would hold a thread for ever. And SIGQUIT only
    leaves word: gunicorn 27's handler takes a lock of the thread pool that the interrupted main thread may be holding,
    which was seen to hang the stop of about one router in a hundred.
    """

    headers_timeout_s: float

    def init_process(self) -> None:
        """In the worker's process, where threads may be started."""
        self._alarms = Alarms()
        self._waiting = threading.local()
        super().init_process()

    def handle_quit(self, _sig: int, _frame: Any) -> None:
        """SIGINT or SIGQUIT: to be done on the next turn of the main loop, where no lock is held."""
        self.method_queue.defer(self._quit_at_once)

    def _quit_at_once(self) -> None:
        """What is queued is written; streams are cut, and the request threads are not waited for."""
        _close(self)
        os._exit(0)

    def handle(self, conn: Any) -> Any:
        """One turn of a connection: wait for a request, read its headers, answer."""
        sock = conn.sock
        self._waiting.alarm = self._alarms.after(self.headers_timeout_s, lambda: _shut(sock))
        try:
            return super().handle(conn)
        finally:
            self._waiting.alarm.cancel()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The headers are here."""
        self._waiting.alarm.cancel()
        return super().handle_request(req, conn)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Server(BaseApplication):  # type: ignore[misc]
    """``run`` serves until it is told to stop. ``after_fork`` runs first in every worker."""

    def __init__(self, settings: Settings, after_fork: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._after_fork = after_fork
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings; the reason beside each that is not plain."""
        settings = self._settings
        chosen: dict[str, Any] = {
            "bind": _bind(settings.host, settings.port),
            "workers": settings.workers,
            "worker_class": type("Worker", (Worker,), {"headers_timeout_s": settings.body_timeout_s}),
            "threads": settings.threads,
            "worker_connections": 10 * settings.threads,
            "keepalive": _KEEPALIVE_S,
            # No request outlives its own deadline, so a stop may wait for the longest stream.
            "graceful_timeout": int(settings.request_timeout_s) + _LAST_WORDS_S,
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
            "post_fork": lambda _server, _worker: self._after_fork(),
            "worker_exit": lambda _server, worker: _close(worker),
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application, made in the worker: its threads would not survive the fork."""
        return create_app(self._settings)


def _bind(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _close(worker: Any) -> None:
    app = getattr(worker, "wsgi", None)
    if isinstance(app, Flask):
        close_app(app)
