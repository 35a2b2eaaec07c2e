"""The names of gunicorn that ai_router.server overrides or uses, though gunicorn does not promise to keep them.

If a test here fails after an upgrade, ai_router.server has to change before the range in pyproject.toml does. What the
overridden methods do is tested in tests/end_to_end/test_server.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http import get_parser, wsgi
from gunicorn.http.errors import ParseException
from gunicorn.http.wsgi import Response
from gunicorn.workers.base import Worker

REQUEST = b"POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("init_process", []),
        ("run", []),
        ("init_signals", []),
        ("notify", []),
        ("handle_exit", ["sig", "frame"]),
        ("handle_quit", ["sig", "frame"]),
        ("handle_error", ["req", "client", "addr", "exc"]),
    ],
)
def test_the_worker_has_the_method(name: str, takes: list[str]) -> None:
    assert parameters(getattr(Worker, name)) == takes


@pytest.mark.parametrize(("name", "takes"), [("run", []), ("handle_hup", []), ("kill_workers", ["sig"])])
def test_the_arbiter_has_the_method(name: str, takes: list[str]) -> None:
    assert parameters(getattr(Arbiter, name)) == takes


@pytest.fixture
def worker() -> Iterator[Any]:
    made = Worker(1, 1, [], None, 30, Config(), None)
    yield made
    made.tmp.close()


@pytest.mark.parametrize("name", ["alive", "cfg", "ppid", "sockets"])
def test_the_worker_has_the_attribute(worker: Any, name: str) -> None:
    assert hasattr(worker, name)


def test_a_request_is_parsed_from_memory_and_what_is_behind_it_is_left() -> None:
    parser = get_parser(Config(), iter((REQUEST + b"GET /next",)), ("127.0.0.1", 1))
    request = next(parser)
    assert request._expected_100_continue is True
    assert parser.finish_body() is True
    assert parser.unreader.take_buffered() == b"GET /next"


def test_what_is_no_request_raises_an_error_of_one_kind() -> None:
    with pytest.raises(ParseException):
        next(get_parser(Config(), iter((b"HELLO\r\n\r\n",)), ("127.0.0.1", 1)))


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
