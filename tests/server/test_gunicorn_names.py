"""The names of gunicorn that ai_router.server overrides or uses, though gunicorn does not promise to keep them.

If a test here fails after an upgrade, ai_router.server has to change before the range in pyproject.toml does. What the
overridden methods do is tested in tests/end_to_end/test_server.py.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.wsgi import Response
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("init_process", []),
        ("handle_exit", ["sig", "frame"]),
        ("handle_quit", ["sig", "frame"]),
        ("accept", ["listener"]),
        ("enqueue_req", ["conn"]),
        ("handle", ["conn"]),
        ("handle_request", ["req", "conn"]),
        ("finish_request", ["conn", "fs"]),
        ("set_accept_enabled", ["enabled"]),
        ("on_pending_socket_readable", ["conn", "client"]),
        ("_cap_keepalive", ["deadline"]),
        ("_keepalive_after", ["conn", "keepalive"]),
    ],
)
def test_the_worker_has_the_method(name: str, takes: list[str]) -> None:
    assert parameters(getattr(ThreadWorker, name)) == takes


@pytest.fixture
def worker() -> Iterator[Any]:
    config = Config()
    made = ThreadWorker(1, 1, [], None, 30, config, None)
    yield made
    made.tmp.close()


@pytest.mark.parametrize(
    "name",
    ["alive", "cfg", "keepalived_conns", "max_keepalived", "method_queue", "pending_conns", "poller", "sockets"],
)
def test_the_worker_has_the_attribute(worker: Any, name: str) -> None:
    assert hasattr(worker, name)


def test_work_for_the_main_loop_is_deferred(worker: Any) -> None:
    assert parameters(worker.method_queue.defer) == ["callback", "args"]


@pytest.mark.parametrize("name", ["data_ready", "initialized", "parser", "sock", "timeout", "client", "server"])
def test_a_connection_has_the_attribute(name: str) -> None:
    here, there = socket.socketpair()
    with closing(here), closing(there):
        assert hasattr(TConn(Config(), here, ("", 0), ("", 0)), name)


def test_a_connection_may_be_closed_gracefully() -> None:
    assert parameters(TConn.close) == ["graceful"]
    assert parameters(close_graceful)[0] == "sock"


def test_the_response_s_class_can_be_chosen() -> None:
    assert parameters(wsgi.create)[:6] == ["req", "sock", "client", "server", "cfg", "response_class"]


@pytest.mark.parametrize(
    "name", ["default_headers", "send_headers", "_emit_body", "close", "force_close", "should_close"]
)
def test_the_response_has_the_method(name: str) -> None:
    assert callable(getattr(Response, name))


@pytest.mark.parametrize("name", ["chunked", "headers", "headers_sent", "sock"])
def test_the_response_has_the_attribute(name: str) -> None:
    assert hasattr(Response(None, None, Config()), name)
