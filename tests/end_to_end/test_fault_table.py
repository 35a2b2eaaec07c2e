"""Every fault that an upstream can have, one case for each fault and stage: what the client sees, what the upstream
sees, what is logged, and that nothing is left behind. The numbers are those of docs/faults.md.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

from tests.end_to_end.conftest import XAI_KEY, Lab, well_behaved
from tests.fakes.personas import CHAT, DONE, SEARCH, chunk, event, says, usage_chunk
from tests.fakes.process import Holdings, assert_nothing_leaked, holdings, worker_of
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Recorded, Script, Slam, Stream, fake_upstream

BRIEF = {
    "FAST_ROUTING": "off",
    "CLASSIFIER_MODE": "off",
    "BACKOFF_S": "0.02",
    "BREAKER_FAILURES": "1000",
    "QUEUE_BUDGET_S": "3",
    "PRIMARY_TTFT_S": "0.4",
    "XAI_TTFT_S": "0.4",
    "PLAIN_TIMEOUT_S": "0.4",
    "STREAM_IDLE_S": "0.4",
    "REQUEST_TIMEOUT_S": "5",
    "CONNECT_TIMEOUT_S": "1",
}

FIRST = chunk({"content": "first"})
OK = says("from ", "the ", "primary")


Arena = tuple[Lab, Holdings]


@contextmanager
def opened_arena(folder: Path) -> Iterator[Arena]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = BRIEF | {"PRIMARY_URL": primary.url, "XAI_API_URL": xai.url, "XAI_API_KEY": XAI_KEY}
        with running_router(folder, **settings) as router:
            for model in ("primary", "xai"):
                for stream in (False, True):
                    router.chat(model=model, stream=stream)
            router.get("/health")
            yield Lab(classifier, primary, xai, router), holdings(worker_of(router))


@pytest.fixture(scope="module")
def shared_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with opened_arena(tmp_path_factory.mktemp("arena")) as opened:
        yield opened


@pytest.fixture
def arena(shared_arena: Arena) -> Iterator[Lab]:
    with left_as_found(shared_arena) as lab:
        yield lab


@pytest.fixture
def arena_for(shared_arena: Arena, tmp_path: Path) -> Iterator[Callable[[Fault], Lab]]:
    """The arena that all share, or one of its own for a fault that outlasts its test."""
    with ExitStack() as opened:

        def choose(fault: Fault) -> Lab:
            chosen = opened.enter_context(opened_arena(tmp_path)) if fault.cools else shared_arena
            return opened.enter_context(left_as_found(chosen))

        yield choose


@contextmanager
def left_as_found(arena: Arena) -> Iterator[Lab]:
    lab, before = arena
    lab.reset()
    yield lab
    assert_nothing_leaked(lab.router, before)


@dataclass(frozen=True)
class Fault:
    """What the primary does; what then happens to a request for ``auto``, which xAI can stand in for, and to one for
    ``primary``, which nobody can.

    ``calls``: how often the primary is asked; ``again``: it answers in the end; ``says``: words of the message.
    """

    number: int
    name: str
    does: Sequence[Script]
    says: str
    status: int = 502
    code: str = "upstream_failed"
    calls: int = 1
    again: bool = False
    moves_on: bool = True
    gone: bool = False
    only: str = "both"
    cools: bool = False
    """The backend is left alone for long afterwards: not in the arena that all share."""


def errs(status: int, error: Any = "boom", **headers: str) -> Plain:
    return Plain({"error": error}, status=status, headers={name.replace("_", "-"): v for name, v in headers.items()})


def dated(_: Recorded) -> Plain:
    return errs(429, "busy", retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True))


def wears_200(code: int, message: str) -> Plain:
    return Plain({"error": {"code": code, "message": message}})


NO_MONEY = {"message": "pay", "code": "insufficient_quota"}
ELSEWHERE = Plain({}, status=302, headers={"Location": "http://127.0.0.1:1/"})

LATE = {"says": "within 0.4 s", "status": 504, "code": "upstream_timeout", "gone": True}
BEFORE_THE_FIRST_BYTE = [
    Fault(3, "hang before headers", [Hang()], **LATE),
    Fault(3, "hang after headers", [Stream([], ending="hang")], only="stream", **LATE),
    Fault(3, "comments but no data", [Stream([b": busy\n\n"] * 200, gap=0.05)], only="stream", **LATE),
    Fault(3, "slammed", [Slam(delay=0.15)], says="closed without an answer", code="upstream_broken"),
    Fault(4, "429, retry-after-ms", [errs(429, "busy", retry_after_ms="150"), OK], says="busy", calls=2, again=True),
    Fault(4, "429, retry-after seconds", [errs(429, "busy", retry_after="1"), OK], says="busy", calls=2, again=True),
    Fault(4, "429, retry-after a date", [dated, OK], says="busy", calls=2, again=True),
    Fault(4, "429 for long", [errs(429, "busy", retry_after="99")], "busy", 429, "rate_limit_exceeded", cools=True),
    Fault(5, "429, no word how long", [errs(429), errs(429), OK], says="boom", calls=3, again=True),
    Fault(5, "429 for ever", [errs(429)], "boom", 429, "rate_limit_exceeded", calls=5),
    Fault(5, "429, no money", [errs(429, NO_MONEY)], "pay", 429, "insufficient_quota", cools=True),
    Fault(6, "500 once", [errs(500), OK], says="boom", calls=2, again=True),
    Fault(6, "502 twice", [errs(502), errs(502), OK], says="boom", calls=3, again=True),
    Fault(6, "503 for ever", [errs(503)], "HTTP 503: boom", 503, calls=3),
    Fault(6, "504 for ever", [errs(504)], "HTTP 504: boom", 504, calls=3),
    Fault(6, "503, retry-after", [errs(503, "full", retry_after_ms="150"), OK], says="full", calls=2, again=True),
    Fault(6, "503 for long", [errs(503, "full", retry_after="99")], "HTTP 503: full", 503, cools=True),
    Fault(7, "400", [errs(400, {"message": "no such role"})], "no such role", 400, "upstream_refused", moves_on=False),
    Fault(7, "404", [errs(404)], "boom", 404, "upstream_refused", moves_on=False),
    Fault(7, "413", [errs(413)], "boom", 413, "upstream_refused", moves_on=False),
    Fault(7, "422", [Plain({"detail": "bad"}, status=422)], "bad", 422, "upstream_refused", moves_on=False),
    Fault(
        7,
        "context length",
        [errs(400, {"message": "maximum context length is 8192", "code": "context_length_exceeded"})],
        "maximum context length is 8192",
        400,
        "context_length_exceeded",
        moves_on=False,
    ),
    Fault(7, "401", [errs(401, "Unauthorized")], "HTTP 401", code="upstream_misconfigured"),
    Fault(7, "403", [errs(403, "Forbidden")], "HTTP 403", code="upstream_misconfigured"),
    Fault(8, "200, error text", [Plain({"error": "CUDA out of memory"})], "CUDA out of memory", calls=3),
    Fault(8, "200, error list", [Plain([{"error": {"message": "no quota"}}])], "no quota", calls=3),
    Fault(8, "200, error object", [Plain({"error": {"message": "sad"}})], "sad", calls=3),
    Fault(
        8,
        "200, error that is a 429",
        [Plain({"error": {"code": 429, "message": "busy"}}), OK],
        "busy",
        calls=2,
        again=True,
    ),
    Fault(
        8,
        "200, error that is a 400",
        [Plain({"error": {"code": 400, "message": "bad"}})],
        "bad",
        400,
        "400",
        moves_on=False,
    ),
    Fault(8, "200, empty", [Plain(raw=b"")], "", calls=3, only="plain"),
    Fault(8, "200, empty stream", [Stream([])], "ended before it began", calls=3, only="stream"),
    Fault(8, "200, a page", [Plain(raw=b"<html>", content_type="text/html")], "", calls=3),
    Fault(8, "200, no choice", [Plain({"choices": []})], "the answer is empty", calls=3, only="stream"),
    Fault(
        9,
        "redirect",
        [Plain({}, status=302, headers={"Location": "http://127.0.0.1:1/"})],
        "redirects",
        code="upstream_misconfigured",
    ),
]


def cases(*, stream: bool) -> list[Any]:
    unwanted = "plain" if stream else "stream"
    return [
        pytest.param(fault, id=f"{fault.number} {fault.name}")
        for fault in BEFORE_THE_FIRST_BYTE
        if fault.only != unwanted
    ]


def check_fault(arena: Lab, fault: Fault, *, stream: bool, model: str) -> None:
    arena.primary.on(CHAT, *fault.does)
    fallback = model == "auto"
    status, headers, body = arena.router.chat(model=model, stream=stream)
    if fault.again:
        assert (status, headers["x-router-route"]) == (200, "primary")
    elif fallback and fault.moves_on:
        assert (status, headers["x-router-route"]) == (200, "xai")
        assert fault.says in headers["x-router-reason"]
    else:
        error = orjson.loads(body)["error"]
        assert (status, error["code"]) == (fault.status, fault.code)
        assert fault.says in error["message"]
        assert "primary" in error["message"], "the message names the backend"
    calls = arena.primary.calls(CHAT)
    assert len(calls) == fault.calls
    assert len(arena.xai.calls(CHAT)) == int(fallback and fault.moves_on and not fault.again)
    if fault.gone:
        assert calls[0].gone.wait(5), "the backend was not left"
    arena.router.wait_for_log(rf"REQUEST session={headers['x-session-id']} .*")
    assert any(line.startswith("Provider failed: primary error=") and fault.says in line for line in arena.router.log())
    session = arena.router.session(headers["x-session-id"])
    kinds = [step["kind"] for step in session["steps"]]
    assert kinds.count("provider_call") == fault.calls + len(arena.xai.calls(CHAT))


@pytest.mark.parametrize("model", ["auto", "primary"])
@pytest.mark.parametrize("fault", cases(stream=False))
def test_before_a_plain_answer(arena_for: Callable[[Fault], Lab], fault: Fault, model: str) -> None:
    check_fault(arena_for(fault), fault, stream=False, model=model)


@pytest.mark.parametrize("model", ["auto", "primary"])
@pytest.mark.parametrize("fault", cases(stream=True))
def test_before_the_first_byte_of_a_stream(arena_for: Callable[[Fault], Lab], fault: Fault, model: str) -> None:
    check_fault(arena_for(fault), fault, stream=True, model=model)


# Mid-stream


@dataclass(frozen=True)
class Break:
    """How a stream that has begun ends badly."""

    number: int
    name: str
    does: Stream
    says: str
    code: str = "upstream_broken"
    gone: bool = False


MID_STREAM = [
    Break(10, "RST", Stream([FIRST], ending="reset"), "broke before the answer was complete"),
    Break(10, "truncated", Stream([FIRST], ending="truncate"), "broke before the answer was complete"),
    Break(10, "EOF without a finish", Stream([FIRST]), "ended before the answer did"),
    Break(10, "error event", Stream([FIRST, event({"error": {"message": "OOM"}})], gap=0.02), "OOM", "upstream_failed"),
    Break(11, "stall", Stream([FIRST], ending="hang"), "silent for 0.4 s", "upstream_timeout", gone=True),
    Break(
        11, "drip for ever", Stream([FIRST] * 400, gap=0.05), "no complete answer within", "upstream_timeout", gone=True
    ),
    Break(12, "a line over 16 MiB", Stream([FIRST, *[b"x" * 65536] * 260], ending="hang"), "longer than", gone=True),
]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"{fault.number} {fault.name}") for fault in MID_STREAM])
def test_in_the_middle_of_a_stream(arena: Lab, fault: Break) -> None:
    arena.primary.on(CHAT, fault.does)
    status, headers, body = arena.router.chat(stream=True)
    assert (status, headers["x-router-route"]) == (200, "primary")
    assert headers["x-accel-buffering"] == "no"
    assert body.startswith(FIRST)
    assert DONE not in body, "no clean end"
    last = orjson.loads(body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]
    assert last["code"] == fault.code
    assert fault.says in last["message"]
    assert not arena.xai.calls(CHAT), "no other model's words"
    assert len(arena.primary.calls(CHAT)) == 1
    if fault.gone:
        assert arena.primary.calls(CHAT)[0].gone.wait(5)
    session = arena.router.session(headers["x-session-id"])
    assert (session["status"], session["response"]["content"][:5]) == ("error", "first")
    arena.router.wait_for_log(rf"Request failed: session={headers['x-session-id']} .*")


def test_12_a_letter_cut_in_two_by_a_chunk_is_whole_again(arena: Lab) -> None:
    said = chunk({"content": "na\u00efve \U0001f600"}) + chunk({}, "stop") + DONE
    arena.primary.on(CHAT, Stream([said[i : i + 1] for i in range(len(said))]))
    _, headers, body = arena.router.chat(stream=True)
    assert body == said
    assert arena.router.session(headers["x-session-id"])["response"]["content"] == "na\u00efve \U0001f600"


def test_12_events_that_are_no_json_are_passed_on_and_counted(arena: Lab) -> None:
    arena.primary.on(CHAT, Stream([FIRST, b"data: {oops\n\n", chunk({}, "stop"), DONE]))
    assert arena.router.chat(stream=True)[2] == FIRST + b"data: {oops\n\n" + chunk({}, "stop") + DONE
    counted = b'ai_router_stream_events_unread_total{backend="primary"} 1.0'
    assert counted in arena.router.get("/metrics")[2]


def test_12_usage_that_is_missing_is_estimated_and_flagged(arena: Lab) -> None:
    arena.primary.on(CHAT, Stream([chunk({"content": "x" * 40}), chunk({}, "stop"), DONE]))
    _, headers, _ = arena.router.chat("y" * 20, stream=True)
    assert arena.router.session(headers["x-session-id"])["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 10,
        "total_tokens": 15,
        "estimated": True,
    }


def test_12_usage_is_asked_for_and_taken_out_again_for_a_client_that_did_not_ask(arena: Lab) -> None:
    body = arena.router.chat(stream=True)[2]
    assert arena.primary.calls(CHAT)[0].body["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in body
    assert usage_chunk() in arena.router.chat(stream=True, stream_options={"include_usage": True})[2]


# Before anything is sent


def unreachable() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def xai_only(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts routers whose primary is somewhere bad, with a healthy xAI to fall back to."""
    with fake_upstream() as xai:
        xai.on(CHAT, says("from ", "xai"))
        xai.on("/v1/models", Plain({"data": []}))

        def start(url: str, **more: str) -> Any:
            settings = BRIEF | {"PRIMARY_URL": url, "XAI_API_URL": xai.url, "XAI_API_KEY": XAI_KEY} | more
            return running_router(tmp_path, **settings)

        yield start


def assert_falls_back_at_once(router: RunningRouter, why: str, *, stream: bool) -> None:
    started = time.monotonic()
    status, headers, _ = router.chat(stream=stream)
    assert time.monotonic() - started < 4, "no retries, no waiting"
    assert (status, headers["x-router-route"]) == (200, "xai")
    assert why in headers["x-router-reason"]
    status, headers, body = router.chat(model="primary", stream=stream)
    error = orjson.loads(body)["error"]
    assert (status, error["code"]) == (502, "upstream_unreachable")
    assert why in error["message"]
    router.wait_for_log(rf"Provider failed: primary error=.*{why}.*, falling back to xai")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_1_connection_refused(xai_only: Callable[..., Any], stream: bool) -> None:
    with xai_only(unreachable()) as router:
        assert_falls_back_at_once(router, "connection refused", stream=stream)
        before = holdings(worker_of(router))
        assert_falls_back_at_once(router, "connection refused", stream=stream)
        assert_nothing_leaked(router, before)


def test_1_no_such_host(xai_only: Callable[..., Any]) -> None:
    with xai_only("http://nobody.invalid:8000") as router:
        assert_falls_back_at_once(router, "no such host", stream=True)


def test_2_tls_that_nobody_vouches_for_is_not_retried_and_shown_in_health(xai_only: Callable[..., Any]) -> None:
    import ssl  # noqa: PLC0415

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with fake_upstream(tls=context) as secret, xai_only(secret.url) as router:
        assert_falls_back_at_once(router, "TLS failed", stream=True)
        assert not secret.calls(CHAT)
        health = orjson.loads(router.get("/health")[2])
        assert "TLS failed" in health["backends"]["primary"]["last_error"]


def test_6_failures_in_a_row_open_the_breaker_and_the_backend_is_left_alone(
    xai_only: Callable[..., Any], upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, Slam())
    with xai_only(upstream.url, BREAKER_FAILURES="3", BACKOFF_S="20") as router:
        for _ in range(5):
            assert router.chat()[1]["x-router-route"] == "xai"
        assert len(upstream.calls(CHAT)) == 3
        health = orjson.loads(router.get("/health")[2])["backends"]["primary"]
        assert (health["breaker"], health["why"]) == ("open", "failing")
        status, headers, body = router.chat(model="primary")
        assert (status, orjson.loads(body)["error"]["code"]) == (503, "upstream_unavailable")
        assert 0 < int(headers["retry-after"]) <= 25


def test_6_a_breaker_tries_again_after_a_while_and_closes(xai_only: Callable[..., Any], upstream: FakeUpstream) -> None:
    upstream.on(CHAT, *[Slam()] * 3, says("well again"))
    with xai_only(upstream.url, BREAKER_FAILURES="3", BACKOFF_S="0.3") as router:
        for _ in range(3):
            router.chat()
        # Nobody else can answer this one: it waits for the probe instead of failing.
        status, headers, _ = router.chat(model="primary")
        assert (status, headers["x-router-route"]) == (200, "primary")
        assert orjson.loads(router.get("/health")[2])["backends"]["primary"]["breaker"] == "closed"


def test_11_when_the_request_s_time_is_up_nobody_else_is_asked_or_blamed(
    xai_only: Callable[..., Any], upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, Hang())
    with xai_only(upstream.url, REQUEST_TIMEOUT_S="0.3", BREAKER_FAILURES="1") as router:
        for _ in range(2):
            assert router.chat(stream=True)[0] == 504
        assert len(upstream.calls(CHAT)) == 2, "its breaker is closed: it may have been about to answer"
        assert router.chat(model="xai")[0] == 200


def test_6_a_search_that_finds_nothing_is_not_made_again(arena: Lab) -> None:
    arena.xai.on(SEARCH, Plain({"status": "completed", "output": []}))
    _, headers, _ = arena.router.chat(model="enrich")
    assert "the web context is missing (the search found nothing)" in headers["x-router-reason"]
    assert len(arena.xai.calls(SEARCH)) == 1
