"""The chat view in its application: what it takes it gives back, and the hooks of all endpoints are its hooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from flask import Flask, Response, request

from ai_router.dispatch.everywhere import InFlightEverywhere
from ai_router.dispatch.in_flight import InFlight, RequestLimit
from ai_router.dispatch.reply import StreamReply
from ai_router.errors import Overloaded, RouterError, Source, UpstreamUnavailable
from ai_router.shared.start import ALONE
from ai_router.web import access, chat, responses
from ai_router.web.chat import PATH
from ai_router.web.requests import Ids

KEY = "a-client-key"
BODY = orjson.dumps({"messages": [{"role": "user", "content": "hi"}]})


class Pipeline:
    """Raises what it is given, or replies with a stream of these portions."""

    def __init__(self) -> None:
        self.problem: Exception | None = ZeroDivisionError()
        self.portions: list[bytes] = []
        self.closed = 0

    def answer(self, record: Any, _scope: Any) -> Any:
        if self.problem is not None:
            raise self.problem
        record.complete()
        return _Stream(record, self)


class _Stream(StreamReply):
    def __init__(self, record: Any, pipeline: Pipeline) -> None:
        super().__init__(record)
        self._pipeline = pipeline

    def body(self) -> Iterator[bytes]:
        yield from self._pipeline.portions

    def close(self) -> None:
        self._pipeline.closed += 1


class Site:
    """An application with the chat view, and what it tells."""

    def __init__(self) -> None:
        self.pipeline = Pipeline()
        self.limit = RequestLimit(1)
        self.in_flight = InFlight()
        self.refused: list[RouterError] = []
        self.outcomes: list[Any] = []
        ids = Ids()
        self.app = Flask(__name__)

        responses.init_app(self.app, lambda body: body.replace(b"secret", b"[key]"), self.refused.append)
        access.init_app(self.app, access.Keys([KEY]), ids, self.limit, None)
        settings = chat.ChatSettings(ids, max_body=1000, max_values=100, tell_date=False, trace_of=lambda _: None)
        self.app.register_blueprint(
            chat.blueprint(
                self.pipeline,  # type: ignore[arg-type]
                self.in_flight,
                (self.outcomes.append,),
                None,  # type: ignore[arg-type]
                settings,
                lambda _api, payload, _client: (payload, {}),
                InFlightEverywhere(self.in_flight, ALONE.peers),
            )
        )

    def ask(self, body: bytes = BODY, headers: dict[str, str] | None = None, **environ: Any) -> Any:
        shown = {"x-api-key": KEY, "x-request-id": "mine", **(headers or {})}
        return self.app.test_client().post(PATH, data=body, headers=shown, environ_overrides=environ)


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_view_is_named_for_what_it_answers(site: Site) -> None:
    assert site.app.view_functions["chat.chat_completions"].__name__ == "chat_completions"


def test_a_failure_of_our_own_is_500_in_the_envelope_and_leaves_nothing_behind(site: Site) -> None:
    for _ in range(3):
        response = site.ask()
        assert (response.status, response.headers["x-request-id"]) == ("500 INTERNAL SERVER ERROR", "mine")
        assert response.json["error"]["code"] == "internal_error"
        response.close()
        assert site.limit.in_flight == 0
    assert len(site.outcomes) == 3
    assert site.in_flight.empty


def test_an_error_tells_when_to_come_back_and_no_key(site: Site) -> None:
    site.pipeline.problem = UpstreamUnavailable("a secret", Source("xai", "m"), status=503, retry_after_s=1.2)
    response = site.ask()
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert b"secret" not in response.data
    assert response.headers["x-session-id"]
    assert not site.refused, "it was a request"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [(BODY, {"x-api-key": "another"}, 401), (b"{", {}, 400), (b"x" * 2000, {}, 413)],
)
def test_what_is_no_request_is_counted_as_refused(
    site: Site, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = site.ask(body, headers)
    assert response.status_code == status
    assert response.headers["x-request-id"] == "mine"
    response.close()
    assert len(site.refused) == 1
    assert site.limit.in_flight == 0
    assert site.outcomes == []


def test_what_the_server_wants_refused_is_refused_but_not_before_the_key_was_asked_for(site: Site) -> None:
    refusal = {access.REFUSAL: Overloaded("too much")}
    assert site.ask(**refusal).status_code == 503
    assert site.ask(headers={"x-api-key": "another"}, **refusal).status_code == 401


def test_as_many_requests_as_the_limit_and_one_more_is_503(site: Site) -> None:
    site.pipeline.problem, site.pipeline.portions = None, [b"data: 1\n\n"]
    first = site.ask()
    assert site.ask().status_code == 503
    first.close()
    assert site.ask().status_code == 200


def test_other_methods_and_paths_are_refused_in_the_envelope(site: Site) -> None:
    client = site.app.test_client()
    for path, method, status in ((PATH, "GET", 405), (f"{PATH}/", "POST", 404), ("/v1/other", "POST", 404)):
        response = client.open(path, method=method, headers={"x-api-key": KEY})
        assert response.status_code == status
        assert response.json["error"]["message"]


def test_whatever_is_registered_applies_to_chat(site: Site) -> None:
    seen = []
    site.app.before_request(lambda: seen.append(request.endpoint))

    @site.app.after_request
    def add(response: Response) -> Response:
        response.headers["x-added"] = "yes"
        return response

    @site.app.errorhandler(ZeroDivisionError)
    def divided(_: ZeroDivisionError) -> tuple[str, int]:
        return "by zero", 418

    response = site.ask()
    assert (response.status_code, response.data, response.headers["x-added"]) == (418, b"by zero", "yes")
    assert seen == ["chat.chat_completions"]
    response.close()
    assert site.limit.in_flight == 0
    assert site.in_flight.empty


def test_before_request_can_answer_in_place_of_chat(site: Site) -> None:
    site.app.before_request(lambda: ("closed today", 503))
    assert site.ask().data == b"closed today"
    assert not site.outcomes


def test_a_hook_that_fails_behind_the_view_leaves_nothing_behind(site: Site) -> None:
    site.pipeline.problem, site.pipeline.portions = None, [b"data: 1\n\n"]

    @site.app.after_request
    def fail(_: Response) -> Response:
        raise ZeroDivisionError

    response = site.ask()
    assert response.status_code == 500
    response.close()
    assert (site.limit.in_flight, site.in_flight.empty, site.pipeline.closed) == (0, True, 1)


def environs_of(site: Site) -> list[dict[str, Any]]:
    """The WSGI environments of the requests to come."""
    environs: list[dict[str, Any]] = []
    inner = site.app.wsgi_app

    def spy(environ: Any, start_response: Any) -> Any:
        environs.append(environ)
        return inner(environ, start_response)

    site.app.wsgi_app = spy  # type: ignore[method-assign]
    return environs


def test_a_stream_is_the_server_s_to_send_and_an_iterator_for_any_other_server(site: Site) -> None:
    site.pipeline.problem, site.pipeline.portions = None, [b"data: 1\n\n", b"data: 2\n\n"]
    environs = environs_of(site)
    response = site.ask()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.data == b"data: 1\n\ndata: 2\n\n"
    assert isinstance(environs[0][responses.STREAM], _Stream)
    response.close()


def test_a_stream_that_a_hook_has_wrapped_is_not_sent_past_it(site: Site) -> None:
    site.pipeline.problem, site.pipeline.portions = None, [b"data: 1\n\n"]
    environs = environs_of(site)

    @site.app.after_request
    def wrap(response: Response) -> Response:
        portions = response.response
        response.response = (portion.upper() for portion in portions)  # type: ignore[assignment, union-attr]
        return response

    response = site.ask()
    assert response.data == b"DATA: 1\n\n"
    assert responses.STREAM not in environs[0]
    response.close()
