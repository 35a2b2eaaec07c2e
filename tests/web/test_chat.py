"""The endpoint as a WSGI application: what it takes it gives back, and what is not for it passes by."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from ai_router.dispatch.disconnects import ClientWatcher
from ai_router.dispatch.in_flight import InFlight
from ai_router.errors import RouterError, Source, UpstreamUnavailable
from ai_router.http.timers import TimerThread
from ai_router.web.auth import Keys
from ai_router.web.chat import PATH, ChatEndpoint
from ai_router.web.limits import Admission
from ai_router.web.requests import Ids

KEY = "a-client-key"
BODY = orjson.dumps({"messages": [{"role": "user", "content": "hi"}]})


class Pipeline:
    """Raises what it is given."""

    def __init__(self) -> None:
        self.problem: Exception = ZeroDivisionError()

    def answer(self, *_: Any) -> Any:
        raise self.problem


class Place:
    """An endpoint and what it tells."""

    def __init__(self, timers: TimerThread, watcher: ClientWatcher) -> None:
        self.pipeline = Pipeline()
        self.admission = Admission(1)
        self.in_flight = InFlight()
        self.refused: list[RouterError] = []
        self.outcomes: list[Any] = []
        self.endpoint = ChatEndpoint(
            pipeline=self.pipeline,  # type: ignore[arg-type]
            keys=Keys([KEY]),
            admission=self.admission,
            watcher=watcher,
            timers=timers,
            subscribers=(self.outcomes.append,),
            ids=Ids(),
            in_flight=self.in_flight,
            max_body=1000,
            body_timeout_s=5.0,
            keepalive_s=5.0,
            tell_date=False,
            trace_of=lambda _: None,
            scrub=lambda body: body.replace(b"secret", b"[key]"),
            refused=self.refused.append,
        )

    def ask(self, body: bytes = BODY, **changes: Any) -> tuple[str, dict[str, str], bytes]:
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": PATH,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "HTTP_X_API_KEY": KEY,
            "HTTP_X_REQUEST_ID": "mine",
            **changes,
        }
        told: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            told[:] = [status, dict(headers)]

        def others(_environ: Any, start: Any) -> list[bytes]:
            start("200 OK", [])
            return [b"others"]

        portions = self.endpoint.before(others)(environ, start_response)  # type: ignore[arg-type]
        answer = b"".join(portions)
        if close := getattr(portions, "close", None):
            close()
        return told[0], told[1], answer


@pytest.fixture
def place(timers: TimerThread) -> Iterator[Place]:
    watcher = ClientWatcher()
    yield Place(timers, watcher)
    watcher.close()


def test_a_failure_of_our_own_is_500_in_the_envelope_and_leaves_nothing_behind(place: Place) -> None:
    for _ in range(3):
        status, headers, body = place.ask()
        assert (status, headers["x-request-id"]) == ("500 Internal Server Error", "mine")
        assert orjson.loads(body)["error"]["code"] == "internal_error"
        assert place.admission.inside == 0
    assert len(place.outcomes) == 3
    place.in_flight.let_end(0)


def test_an_error_tells_when_to_come_back_and_no_key(place: Place) -> None:
    place.pipeline.problem = UpstreamUnavailable("a secret", Source("xai", "m"), status=503, retry_after_s=1.2)
    status, headers, body = place.ask()
    assert (status, headers["retry-after"], headers["content-length"]) == (
        "503 Service Unavailable",
        "2",
        str(len(body)),
    )
    assert b"secret" not in body
    assert headers["x-session-id"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"HTTP_X_API_KEY": "another"}, "401 Unauthorized"),
        ({"body": b"{"}, "400 Bad Request"),
        ({"body": b"x" * 2000}, "413 Request Entity Too Large"),
    ],
)
def test_what_is_no_request_is_counted_as_refused(place: Place, changes: dict[str, Any], status: str) -> None:
    told, headers, _ = place.ask(**changes)
    assert told == status
    assert headers["x-request-id"] == "mine"
    assert len(place.refused) == 1
    assert place.admission.inside == 0
    assert place.outcomes == []


def test_other_paths_are_others(place: Place) -> None:
    for path in ("/v1/models", f"{PATH}/", f"/{PATH}"):
        assert place.ask(PATH_INFO=path)[2] == b"others"
    assert place.ask(REQUEST_METHOD="GET")[2] == b"others"
