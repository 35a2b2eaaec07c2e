"""Events that are made in this process, for a server of either kind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.test import create_environ

from ai_router.web import responses
from ai_router.web.live_events import LiveEvents, live_response

ONE, TWO = b"data: 1\n\n", b"data: 2\n\n"


class Site:
    """An application that streams what the test sends."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.events = LiveEvents(self.closed.set)
        self.environ: dict[str, Any] = {}
        app = Flask(__name__)
        responses.init_app(app, lambda body: body, lambda _: None)

        @app.get("/live")
        def live() -> Response:
            return live_response(self.events)

        self.app = app
        self.client = app.test_client()

    def begin(self) -> Any:
        """The response as a server gets it, of which nothing has been asked yet."""
        self.environ = create_environ("/live")
        return self.app(self.environ, lambda *_: None)  # type: ignore[arg-type, return-value]


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_server_with_a_thread_for_it_gets_them_as_they_come(site: Site) -> None:
    site.events.send(ONE)
    response = site.client.get("/live")
    portions = response.iter_encoded()
    assert next(portions) == ONE
    threading.Timer(0.02, site.events.send, [TWO]).start()
    assert next(portions) == TWO
    site.events.end()
    assert list(portions) == []
    assert not site.closed.is_set()
    response.close()
    assert site.closed.is_set()


def test_a_server_that_sends_streams_itself_is_given_them(site: Site) -> None:
    response = site.begin()
    events, sent = site.environ[responses.STREAM], []
    site.events.send(ONE)
    assert list(events.opening()) == [ONE]
    site.events.send(TWO)
    assert events.detach(lambda: None) is None
    events.attach(sent.append, lambda: sent.append(b"end"))
    site.events.send(ONE)
    site.events.end()
    assert sent == [TWO, ONE, b"end"]
    site.events.send(TWO)
    assert sent[-1] == b"end", "behind the end nothing is sent"
    response.close()


def test_once_the_response_has_closed_nothing_is_sent(site: Site) -> None:
    response = site.begin()
    sent: list[bytes] = []
    site.events.attach(sent.append, lambda: None)
    response.close()
    site.events.send(ONE)
    assert sent == []
