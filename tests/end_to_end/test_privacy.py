"""With SESSION_BODIES=off or redacted no word of a prompt is kept, whoever repeats it: in every file, span and page."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.conftest import XAI_KEY
from tests.fakes.personas import CHAT, DONE, SEARCH, anew, chunk, classifies, completion, event, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Reply, Stream, fake_upstream

WORD = "zebrafish"
PROMPT = f"What did the {WORD} say yesterday?"
QUOTING = f"cannot answer '{PROMPT}'"

FAULTS: dict[str, Reply] = {
    "refused": Plain({"error": {"message": QUOTING, "code": "bad", "param": "messages"}}, status=400),
    "text": Plain(raw=QUOTING.encode(), status=422),
    "details": Plain({"detail": [{"loc": ["body"], "msg": QUOTING}]}, status=422),
    "moderated": Plain({"error": {"message": f"{QUOTING}: moderated"}}, status=403),
    "limited": Plain({"error": {"message": QUOTING}}, status=429, headers={"retry-after-ms": "1"}),
    "failed": Plain({"error": QUOTING}, status=500),
    "within": Plain({"error": {"message": QUOTING}}),
    "choice": Plain({"choices": [{"index": 0, "error": {"message": QUOTING}}]}),
    "unknown": Plain({"what": QUOTING}),
    "no JSON": Plain(raw=f"<p>{QUOTING}".encode()),
    "event": Stream([chunk({"content": WORD}), event({"error": {"message": QUOTING}})]),
    "named event": Stream([chunk({"content": WORD}), b"event: error\ndata: " + QUOTING.encode() + b"\n\n"]),
    "broken": Stream([chunk({"content": WORD})]),
    "cut": Stream([b'data: {"choices":[{"index":0,"delta":{"content":"' + WORD.encode()]),
    "unread": Stream([b"data: {" + WORD.encode() + b"\n\n", chunk({}, "stop"), DONE]),
    "answer": says(WORD, "!"),
}


LASTING: dict[str, Reply] = {
    "key": Plain({"error": {"message": f"invalid api key for {PROMPT}"}}, status=401),
    "quota": Plain({"error": {"message": QUOTING, "code": "insufficient_quota"}}, status=429),
}
"""After these the backend is left alone for a while."""


@pytest.fixture(params=["off", "redacted"])
def bodies(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def xai() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        yield fake


@pytest.fixture
def collector() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on("/v1/traces", Plain({}))
        yield fake


@pytest.fixture
def router(
    tmp_path: Path, upstream: FakeUpstream, xai: FakeUpstream, collector: FakeUpstream, bodies: str
) -> Iterator[RunningRouter]:
    settings = {
        "PRIMARY_URL": upstream.url,
        "ROUTER_URL": xai.url,
        "XAI_API_URL": xai.url,
        "XAI_API_KEY": XAI_KEY,
        "SESSION_BODIES": bodies,
        "BACKOFF_S": "0.01",
        "BREAKER_FAILURES": "1000",
        "QUEUE_BUDGET_S": "0.2",
        "LOG_LEVEL": "DEBUG",
        "TRACING": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    upstream.on(CHAT, says("fine"))
    xai.on(CHAT, classifies("MODERATE"))
    xai.on(SEARCH, Plain({"error": {"message": QUOTING}}, status=500))
    with running_router(tmp_path, **settings) as running:
        yield running


def assert_nothing_is_kept(router: RunningRouter, collector: FakeUpstream) -> None:
    for page in ("/metrics", "/api/metrics", "/api/usage", "/api/sessions", "/health"):
        assert WORD not in router.get(page)[2].decode(), page
    router.stop()
    with closing(sqlite3.connect(router.data / "usage.db")) as database:
        assert WORD not in "\n".join(database.iterdump())
    kept = [path for path in router.data.parent.rglob("*") if path.is_file()]
    assert len(kept) > 3
    for path in kept:
        assert WORD.encode() not in path.read_bytes(), (path, path.read_bytes()[:3000])
    assert eventually(lambda: collector.calls("/v1/traces"))
    for call in collector.calls("/v1/traces"):
        assert WORD.encode() not in call.raw_body, call.raw_body


def test_the_words_of_a_prompt_are_kept_nowhere_whatever_its_backend_says(
    router: RunningRouter, upstream: FakeUpstream, collector: FakeUpstream
) -> None:
    for name, fault in FAULTS.items():
        upstream.on(CHAT, fault)
        for stream in (False, True):
            _, headers, body = router.chat(anew(PROMPT), model="primary", stream=stream, max_tokens=7)
            assert router.session(headers["x-session-id"])["status"], name
            if name in ("refused", "text", "details", "moderated", "failed", "event"):
                assert WORD.encode() in body, f"{name}: the client is told"
    assert_nothing_is_kept(router, collector)


@pytest.mark.parametrize("fault", LASTING)
def test_nor_after_a_refused_key_or_a_used_up_quota(
    router: RunningRouter, upstream: FakeUpstream, collector: FakeUpstream, fault: str
) -> None:
    upstream.on(CHAT, LASTING[fault])
    assert router.chat(anew(PROMPT), model="primary")[0] in (429, 502)
    assert_nothing_is_kept(router, collector)


@pytest.mark.parametrize(
    "babble",
    [
        Plain({"error": {"message": QUOTING}}, status=400),
        Plain({"error": QUOTING}),
        Plain(completion(QUOTING)),
        Stream([chunk({"reasoning_content": QUOTING}), chunk({}, "stop"), DONE]),
    ],
    ids=["refuses", "errs", "babbles", "thinks"],
)
def test_nor_what_a_classifier_a_search_and_the_cloud_repeat(
    router: RunningRouter, upstream: FakeUpstream, xai: FakeUpstream, collector: FakeUpstream, babble: Reply
) -> None:
    xai.on(CHAT, babble)
    for model in ("auto", "enrich", "xai", f"xai/{WORD[:4]}"):
        for stream in (False, True):
            router.chat(anew(f"{PROMPT} {QUOTING}"), model=model, stream=stream)
    assert_nothing_is_kept(router, collector)


def test_in_full_sessions_say_what_a_backend_said(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, FAULTS["refused"])
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        _, headers, _ = router.chat(PROMPT, model="primary")
        assert WORD in router.session(headers["x-session-id"])["error"]
