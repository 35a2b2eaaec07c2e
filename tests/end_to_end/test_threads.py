"""Threads: conversations that are kept, answers that survive their reader, and whose they are."""

from __future__ import annotations

import http.client
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.threads.answer import MAX_KEPT_BYTES
from tests.fakes.personas import CHAT, DONE, chunk, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Stream

Json = dict[str, Any]
KEYS = {"one": "key-of-the-first", "two": "key-of-the-second"}


def call(
    router: RunningRouter, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Json]:
    connection = router.connection()
    try:
        connection.request(method, path, None if body is None else orjson.dumps(body), headers or {})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


def new_thread(router: RunningRouter, headers: dict[str, str] | None = None) -> str:
    status, thread = call(router, "POST", "/api/threads", {}, headers)
    assert status == 201
    return str(thread["id"])


class Events:
    """The events of a stream, as they come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def next(self) -> tuple[int, str, Json]:
        found: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            if not line.startswith(":"):
                name, _, value = line.partition(": ")
                found[name] = value
        if not found:
            if self.response.isclosed():
                raise EOFError
            return self.next()
        return int(found["id"]), found["event"], orjson.loads(found["data"])

    def rest(self) -> list[tuple[int, str, Json]]:
        events = []
        while not events or events[-1][1] not in ("done", "error"):
            events.append(self.next())
        return events


@contextmanager
def stream(
    router: RunningRouter, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Iterator[Events]:
    connection = router.connection()
    try:
        connection.request("GET" if body is None else "POST", path, body and orjson.dumps(body), headers or {})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        yield Events(response)
        response.close()
    finally:
        connection.close()


@pytest.fixture
def router(tmp_path: Path, upstream: FakeUpstream) -> Iterator[RunningRouter]:
    upstream.on(CHAT, says("It ", "is ", "a ", "sheep."))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, FAST_ROUTING="off", THREAD_RESUME_S="1") as running:
        yield running


def test_a_thread_is_made_listed_renamed_and_deleted(router: RunningRouter) -> None:
    ids = [new_thread(router) for _ in range(3)]
    _, page = call(router, "GET", "/api/threads?limit=2")
    assert [thread["id"] for thread in page["data"]] == ids[:0:-1]
    _, rest = call(router, "GET", f"/api/threads?limit=2&before={page['next']}")
    assert ([thread["id"] for thread in rest["data"]], rest["next"]) == (ids[:1], None)
    _, renamed = call(router, "PATCH", f"/api/threads/{ids[0]}", {"title": "About sheep"})
    assert renamed["title"] == "About sheep"
    assert call(router, "DELETE", f"/api/threads/{ids[0]}")[1]["deleted"] is True
    status, answer = call(router, "GET", f"/api/threads/{ids[0]}")
    assert (status, answer["error"]["code"]) == (404, "thread_not_found")


def test_a_message_is_answered_as_events_and_both_are_kept(router: RunningRouter, upstream: FakeUpstream) -> None:
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "What is that?"}) as events:
        told = events.rest()
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    assert [name for _, name, _ in told] == ["message", "decision", *["delta"] * 4, "done"]
    assert "".join(said["content"] for _, name, said in told if name == "delta") == "It is a sheep."
    done = told[-1][2]
    assert (done["status"], done["content"], done["saved"]) == ("complete", "It is a sheep.", True)
    assert done["details"]["route"] == "primary"
    assert done["details"]["output_tokens"] == 3
    _, page = call(router, "GET", f"/api/threads/{thread}/messages")
    asked, answered = page["data"]
    assert (asked["role"], asked["content"], asked["status"]) == ("user", "What is that?", "complete")
    assert (answered["id"], answered["content"]) == (done["message_id"], "It is a sheep.")
    assert call(router, "GET", f"/api/threads/{thread}")[1]["title"] == "What is that?"
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "And that?"}) as events:
        events.rest()
    sent = [message["content"] for message in upstream.calls(CHAT)[-1].body["messages"] if message["role"] != "system"]
    assert sent == ["What is that?", "It is a sheep.", "And that?"]


def test_a_message_is_answered_in_one_piece_too_and_one_of_another_role_is_kept_only(
    router: RunningRouter, upstream: FakeUpstream
) -> None:
    thread = new_thread(router)
    path = f"/api/threads/{thread}/messages"
    status, kept = call(router, "POST", path, {"content": "You are a shepherd.", "role": "system"})
    assert (status, kept["role"]) == (201, "system")
    assert not upstream.calls(CHAT)
    status, answer = call(router, "POST", path, {"content": "What is that?", "provider": "primary", "temperature": 0.1})
    assert (status, answer["content"], answer["status"]) == (201, "It is a sheep.", "complete")
    body = upstream.calls(CHAT)[-1].body
    assert (body["temperature"], body["messages"][0]["content"][:19]) == (0.1, "You are a shepherd.")


def test_a_page_that_is_loaded_anew_in_mid_answer_misses_nothing(router: RunningRouter, upstream: FakeUpstream) -> None:
    words = [chunk({"content": f"{number} "}) for number in range(20)]
    upstream.on(CHAT, Stream([*words, chunk({}, "stop"), DONE], gap=0.05))
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "Count."}) as events:
        seen = [events.next() for _ in range(6)]
    message = seen[0][2]["message_id"]
    path = f"/api/threads/{thread}/messages/{message}"
    assert call(router, "GET", path)[1]["status"] == "streaming"
    with stream(router, f"{path}/stream", headers={"Last-Event-ID": str(seen[-1][0])}) as events:
        seen += events.rest()
    assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
    said = "".join(data["content"] for _, name, data in seen if name == "delta")
    assert said == seen[-1][2]["content"] == "".join(f"{number} " for number in range(20))
    with stream(router, f"{path}/stream", headers={"Last-Event-ID": "3"}) as events:
        ((_, name, last),) = events.rest()
    assert (name, last["content"], last["status"]) == ("done", said, "complete")


def test_two_readers_see_the_same(router: RunningRouter, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "a"}) for _ in range(10)] + [chunk({}, "stop"), DONE], gap=0.05))
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as first:
        begun = first.next()
        with stream(router, f"/api/threads/{thread}/messages/{begun[2]['message_id']}/stream") as second:
            assert second.rest() == [begun, *first.rest()]


def test_messages_come_in_pages(router: RunningRouter) -> None:
    thread = new_thread(router)
    for number in range(3):
        call(router, "POST", f"/api/threads/{thread}/messages", {"role": "assistant", "content": f"note {number}"})
    seen: list[str] = []
    query = "limit=1"
    while query:
        status, page = call(router, "GET", f"/api/threads/{thread}/messages?{query}")
        assert status == 200, page
        seen += [message["content"] for message in page["data"]]
        query = f"limit=1&before={page['next']}" if page["next"] else ""
    assert seen == ["note 2", "note 1", "note 0"]


def test_an_answer_that_nobody_comes_back_for_is_cut(router: RunningRouter, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as events:
        message = events.next()[2]["message_id"]
        while events.next()[1] != "delta":
            pass
    called = upstream.wait_for(CHAT)
    left = time.monotonic()
    assert called.gone.wait(10)
    assert time.monotonic() - left > 0.5, "it went on for a while"
    path = f"/api/threads/{thread}/messages/{message}"
    assert eventually(lambda: call(router, "GET", path)[1]["status"] == "cancelled")
    assert call(router, "GET", path)[1]["content"] == "first"


@pytest.mark.parametrize("begun", [True, False])
def test_a_cancel_reaches_the_backend_within_300_ms(router: RunningRouter, upstream: FakeUpstream, begun: bool) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "first"})], ending="hang") if begun else Hang())
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as events:
        message = events.next()[2]["message_id"]
        called = upstream.wait_for(CHAT)
        clicked = time.monotonic()
        status, answer = call(router, "POST", f"/api/threads/{thread}/messages/{message}/cancel")
        assert (status, answer["cancelled"]) == (200, True)
        assert called.gone.wait(5)
        assert time.monotonic() - clicked < 0.3, "the bound of the contract, as in test_cancel.py"
        last = events.rest()[-1]
    assert (last[1], last[2]["status"]) == ("done", "cancelled")
    _, again = call(router, "POST", f"/api/threads/{thread}/messages/{message}/cancel")
    assert (again["cancelled"], again["was"]) == (False, "cancelled")


def test_deleting_a_thread_stops_what_it_streams(router: RunningRouter, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as events:
        events.next()
        called = upstream.wait_for(CHAT)
        assert call(router, "DELETE", f"/api/threads/{thread}")[0] == 200
        assert called.gone.wait(5)
        events.rest()
    assert call(router, "GET", f"/api/threads/{thread}/messages")[0] == 404


@pytest.mark.parametrize(
    ("reply", "said", "code"),
    [
        (Plain({"error": {"message": "CUDA"}}, status=400), "", "upstream_refused"),
        (Stream([chunk({"content": "half"})], ending="reset"), "half", "upstream_broken"),
    ],
    ids=["refused", "broken"],
)
def test_an_answer_that_fails_says_so_and_keeps_what_came(
    router: RunningRouter, upstream: FakeUpstream, reply: Any, said: str, code: str
) -> None:
    upstream.on(CHAT, reply)
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x", "model": "primary"}) as events:
        number, name, last = events.rest()[-1]
    assert number
    assert (name, last["status"], last["content"], last["error"]["code"]) == ("error", "error", said, code)
    kept = call(router, "GET", f"/api/threads/{thread}/messages")[1]["data"][-1]
    assert (kept["status"], kept["error"]["code"]) == ("error", code)
    with stream(router, f"/api/threads/{thread}/messages/{kept['id']}/stream") as events:
        assert events.rest()[-1][1] == "error"


def test_a_model_that_is_not_there_is_an_error_of_the_message(router: RunningRouter) -> None:
    thread = new_thread(router)
    body = {"content": "x", "provider": "openai", "model": "gpt-4o-mini"}
    with stream(router, f"/api/threads/{thread}/messages/stream", body) as events:
        name, last = events.rest()[-1][1:]
    assert (name, last["error"]["code"]) == ("error", "model_not_found")
    assert "OPENAI_API_KEY" in last["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "content"),
        ({"content": ""}, "content"),
        ({"content": ["x"]}, "content"),
        ({"content": "x", "role": "assistant"}, "role"),
        ({"content": "x", "model": 5}, "model"),
        ({"content": "x", "temperature": "warm"}, "temperature"),
        ([], "body"),
    ],
)
def test_bad_input_names_the_field_and_nothing_is_kept(router: RunningRouter, body: Any, param: str) -> None:
    thread = new_thread(router)
    status, answer = call(router, "POST", f"/api/threads/{thread}/messages/stream", body)
    assert (status, answer["error"]["param"]) == (400, param)
    assert call(router, "GET", f"/api/threads/{thread}/messages")[1]["data"] == []


def test_an_organization_and_a_key_own_a_thread(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("hi"))
    keys = {"AI_ROUTER_API_KEYS": ",".join(KEYS.values()), "AI_ROUTER_ADMIN_KEY": "the-admins-key"}
    with running_router(tmp_path, PRIMARY_URL=upstream.url, **keys) as router:

        def of(key: str, org: str | None = None) -> dict[str, str]:
            return {"Authorization": f"Bearer {key}"} | ({} if org is None else {"x-org-id": org})

        mine = of(KEYS["one"], "demo-org")
        thread = new_thread(router, mine)
        path = f"/api/threads/{thread}"
        for headers in (of(KEYS["one"]), of(KEYS["one"], "other"), of(KEYS["two"], "demo-org")):
            for method, at in (
                ("GET", path),
                ("GET", f"{path}/messages"),
                ("DELETE", path),
                ("POST", f"{path}/messages/stream"),
                ("POST", f"{path}/messages"),
            ):
                body = {"content": "x"} if method == "POST" else None
                assert call(router, method, at, body, headers)[0] == 404, (method, at, headers)
            assert call(router, "GET", "/api/threads", None, headers)[1]["data"] == []
        assert call(router, "GET", path, None, mine)[1]["organization"] == "demo-org"
        assert call(router, "GET", path, None, of("the-admins-key", "demo-org"))[0] == 200
        assert call(router, "GET", path)[0] == 401
        status, answer = call(router, "GET", path, None, of(KEYS["one"], "no such org!"))
        assert (status, answer["error"]["param"]) == (400, "x-org-id")


def test_a_message_whose_process_has_died_is_interrupted(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, FAST_ROUTING="off") as router:
        thread = new_thread(router)
        with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as events:
            events.next()
            upstream.wait_for(CHAT)
            router.stop(signal.SIGKILL)
    with running_router(tmp_path, PRIMARY_URL=upstream.url, FAST_ROUTING="off") as router:
        path = f"/api/threads/{thread}/messages"
        assert eventually(lambda: call(router, "GET", path)[1]["data"][-1]["status"] == "interrupted", 30)


def test_a_stop_marks_what_it_cuts_off(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, FAST_ROUTING="off") as router:
        thread = new_thread(router)
        with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as events:
            while events.next()[1] != "delta":
                pass
            assert router.stop(signal.SIGINT) == 0
    with running_router(tmp_path, PRIMARY_URL=upstream.url, FAST_ROUTING="off") as router:
        kept = call(router, "GET", f"/api/threads/{thread}/messages")[1]["data"][-1]
        assert (kept["status"], kept["content"]) == ("interrupted", "first")


def test_a_reader_that_has_missed_more_than_is_kept_gets_the_text_until_now(
    router: RunningRouter, upstream: FakeUpstream
) -> None:
    much = "x" * (MAX_KEPT_BYTES // 4)
    upstream.on(CHAT, Stream([chunk({"content": much}) for _ in range(6)] + [chunk({"content": "end"})], ending="hang"))
    thread = new_thread(router)
    with stream(router, f"/api/threads/{thread}/messages/stream", {"content": "x"}) as events:
        message = events.next()[2]["message_id"]
        while events.next()[2].get("content") != "end":
            pass
        with stream(router, f"/api/threads/{thread}/messages/{message}/stream") as late:
            _, name, snapshot = late.next()
            assert (name, len(snapshot["content"])) == ("snapshot", 6 * len(much) + 3)
        call(router, "POST", f"/api/threads/{thread}/messages/{message}/cancel")
