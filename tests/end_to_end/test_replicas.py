"""Two routers at one Redis and one database: whichever a client reaches, it finds the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, well_behaved
from tests.end_to_end.test_threads import call, new_thread, stream
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, classifies, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Stream, fake_upstream
from tests.fakes.valkey import RunningValkey, running_valkey

FIRST = chunk({"content": "first"})
ENDLESS = Stream([FIRST], ending="hang")


@dataclass
class Replicas:
    """Both routers, and what is behind them."""

    one: RunningRouter
    other: RunningRouter
    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream
    valkey: RunningValkey


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "valkey").mkdir()
    with (
        fake_upstream() as classifier,
        fake_upstream() as primary,
        fake_upstream() as xai,
        running_valkey(folder / "valkey") as valkey,
    ):
        classifier.on(CHAT, classifies("MODERATE"))
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "FAST_ROUTING": "on",
            "SHADOW_SHARE": "0",
            "BACKOFF_S": "0.5",
            "BREAKER_FAILURES": "1000",
            "QUEUE_BUDGET_S": "0.2",
            "REDIS_URL": valkey.url,
            "DATABASE_URL": f"sqlite:///{folder / 'usage.db'}",
            "SESSION_DIR": str(folder / "sessions"),
        }
        with running_router(folder / "one", **settings) as one, running_router(folder / "other", **settings) as other:
            replicas = Replicas(one, other, classifier, primary, xai, valkey)
            for router in (one, other):
                router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
                assert eventually(lambda router=router: shared_state(router)["processes"] == 2)
            yield replicas


@pytest.fixture
def replicas(shared: Replicas) -> Replicas:
    for fake in (shared.classifier, shared.primary, shared.xai):
        fake.reset()
    well_behaved(shared.classifier, shared.primary, shared.xai)
    return shared


def shared_state(router: RunningRouter) -> Any:
    return orjson.loads(router.get("/health")[2])["shared"]


def cancel(router: RunningRouter, request_id: str) -> tuple[int, Any]:
    return call(router, "POST", f"/v1/requests/{request_id}/cancel")


def test_a_cancel_at_one_ends_the_stream_of_the_other(replicas: Replicas) -> None:
    replicas.primary.on(CHAT, ENDLESS)
    client = RawClient(replicas.one.port)
    client.send_chat(text=anew(), stream=True, model="primary", headers="x-request-id: far-away\r\n")
    client.read_until(b"first")
    status, body = cancel(replicas.other, "far-away")
    assert status == 200
    assert [entry["phase"] for entry in body["cancelled"]] == ["streaming"]
    client.read_until(b"request_cancelled")
    recorded = replicas.primary.calls(CHAT)[-1]
    assert recorded.gone.wait(5)
    # Asked again, at either, it tells the same.
    assert cancel(replicas.one, "far-away") == (status, body)
    assert cancel(replicas.other, "far-away") == (status, body)
    client.leave()


def test_a_cancel_of_nothing_is_not_found_at_both(replicas: Replicas) -> None:
    assert cancel(replicas.one, "never-was")[0] == 404


def test_a_decision_of_the_classifiers_is_known_to_both(replicas: Replicas) -> None:
    text = anew("Which of the two would you rather have had, all things considered, and why not the other?")
    known = replicas.valkey.client()
    before = len(known.keys("ai-router:decision:*"))
    assert replicas.one.chat(text)[1]["x-router-decided-by"] == "classifier"
    assert eventually(lambda: len(known.keys("ai-router:decision:*")) > before)
    asked = len(replicas.classifier.calls(CHAT))
    assert replicas.other.chat(text)[1]["x-router-decided-by"] == "cache"
    assert len(replicas.classifier.calls(CHAT)) == asked


def test_a_conversation_goes_on_at_the_other_as_it_began(replicas: Replicas) -> None:
    replicas.classifier.on(CHAT, classifies("COMPLEX"))
    opening = {"role": "user", "content": anew("Which of the two would you rather have had, and why not the other?")}
    body = {"messages": [opening]}
    known = replicas.valkey.client()
    before = len(known.keys("ai-router:turn:*"))
    assert replicas.one.post(orjson.dumps(body))[1]["x-router-route"] == "xai"
    assert eventually(lambda: len(known.keys("ai-router:turn:*")) > before)
    body["messages"] += [{"role": "assistant", "content": "Hm."}, {"role": "user", "content": "go on"}]
    headers = replicas.other.post(orjson.dumps(body))[1]
    assert (headers["x-router-decided-by"], headers["x-router-route"]) == ("conversation", "xai")


def test_what_one_has_found_the_other_does_not_search_again(replicas: Replicas) -> None:
    text = anew("The weather in Paris?")
    known = replicas.valkey.client()
    before = len(known.keys("ai-router:findings:*"))
    assert replicas.one.chat(text, model="enrich")[1]["x-router-route"] == "enrich"
    assert eventually(lambda: len(known.keys("ai-router:findings:*")) > before)
    assert replicas.other.chat(text, model="enrich")[1]["x-router-route"] == "enrich"
    assert len(replicas.xai.calls(SEARCH)) == 1
    assert "It rains in Paris." in replicas.primary.calls(CHAT)[-1].raw_body.decode()


def test_a_cooldown_that_one_has_seen_the_other_heeds(replicas: Replicas) -> None:
    replicas.xai.on(CHAT, Plain({"error": {"message": "slow down"}}, 429, headers={"Retry-After": "2"}))
    state = b'ai_router_breaker_state{backend="xai"} 2'
    assert replicas.one.chat(anew(), model="xai", stream=False)[0] in (200, 429)
    assert eventually(lambda: state in replicas.other.get("/metrics")[2], 1.0)
    replicas.xai.on(CHAT, says("well"))
    assert eventually(lambda: state not in replicas.other.get("/metrics")[2], 30.0)


def test_a_breaker_closes_at_both(replicas: Replicas) -> None:
    replicas.xai.on(CHAT, Plain({"error": {"message": "no"}}, 401))
    replicas.one.chat(anew(), model="xai")
    closed = b'ai_router_breaker_state{backend="xai"} 0'
    assert eventually(lambda: closed not in replicas.other.get("/metrics")[2])
    replicas.xai.on(CHAT, says("well"))
    assert eventually(lambda: replicas.one.chat(anew(), model="xai")[1]["x-router-route"] == "xai", 30.0)
    assert eventually(lambda: closed in replicas.other.get("/metrics")[2], 1.0)


def test_usage_and_sessions_are_found_at_the_other_at_once(replicas: Replicas) -> None:
    session = replicas.one.chat(anew())[1]["x-session-id"]
    assert replicas.other.get(f"/api/sessions/{session}")[0] == 200
    before = orjson.loads(replicas.other.get("/api/usage")[2])["total"]["requests"]
    replicas.one.chat(anew())
    assert orjson.loads(replicas.other.get("/api/usage")[2])["total"]["requests"] == before + 1


def test_the_windows_count_what_both_have_answered(replicas: Replicas) -> None:
    def counted(router: RunningRouter) -> int:
        return int(orjson.loads(router.get("/api/metrics")[2])["windows"]["5m"]["all"]["requests"])

    before = counted(replicas.one)
    replicas.one.chat(anew())
    replicas.other.chat(anew())
    assert counted(replicas.one) == counted(replicas.other) == before + 2


def test_what_is_under_way_at_one_is_seen_at_the_other(replicas: Replicas) -> None:
    replicas.primary.on(CHAT, ENDLESS)
    client = RawClient(replicas.one.port)
    client.send_chat(text=anew(), stream=True, model="primary", headers="x-request-id: seen-from-afar\r\n")
    client.read_until(b"first")
    watcher = RawClient(replicas.other.port)
    watcher.send(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    watcher.read_until(b"seen-from-afar")
    watcher.read_until(b'"calls":1')
    client.leave()
    watcher.leave()


def test_a_stored_response_is_gone_on_with_at_the_other(replicas: Replicas) -> None:
    one, other = (
        openai.OpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=0)
        for router in (replicas.one, replicas.other)
    )
    with one, other:
        first = one.responses.create(model="primary", input="one")
        second = other.responses.create(model="primary", input="two", previous_response_id=first.id)
        assert one.responses.retrieve(second.id).previous_response_id == first.id
        other.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            one.responses.retrieve(first.id)


def test_a_threads_answer_is_read_on_at_the_other(replicas: Replicas) -> None:
    replicas.primary.on(CHAT, Stream([FIRST, *[chunk({"content": f" {n}"}) for n in range(50)]], gap=0.02))
    thread = new_thread(replicas.one)
    with stream(
        replicas.one, f"/api/threads/{thread}/messages/stream", {"content": anew(), "model": "primary"}
    ) as events:
        message = events.next()[2]["message_id"]
        path = f"/api/threads/{thread}/messages/{message}/stream"
        with stream(replicas.other, path) as elsewhere:
            seen = elsewhere.rest()
    said = "".join(event[2].get("content", "") for event in seen if event[1] == "delta")
    assert said == "first" + "".join(f" {n}" for n in range(50))
    assert [event[0] for event in seen] == list(range(1, len(seen) + 1))


def test_a_threads_answer_is_cancelled_at_the_other(replicas: Replicas) -> None:
    replicas.primary.on(CHAT, ENDLESS)
    thread = new_thread(replicas.one)
    with stream(
        replicas.one, f"/api/threads/{thread}/messages/stream", {"content": anew(), "model": "primary"}
    ) as events:
        message = events.next()[2]["message_id"]
        status, body = call(replicas.other, "POST", f"/api/threads/{thread}/messages/{message}/cancel", {})
        assert (status, body["cancelled"]) == (200, True)
        assert events.rest()[-1][2]["status"] == "cancelled"


def test_while_redis_is_away_each_goes_on_by_itself(replicas: Replicas) -> None:
    replicas.valkey.stop()
    try:
        for router in (replicas.one, replicas.other):
            assert eventually(lambda router=router: not shared_state(router)["ok"])
            assert router.chat(anew())[0] == 200
            assert orjson.loads(router.get("/health")[2])["status"] == "degraded"
        # What is not here may be there, which cannot be asked.
        status, body = cancel(replicas.one, "perhaps-at-the-other")
        assert (status, body["error"]["code"]) == (503, "shared_state_unavailable")
    finally:
        replicas.valkey.start()
    for router in (replicas.one, replicas.other):
        assert eventually(lambda router=router: shared_state(router) == {"ok": True, "processes": 2})
    assert eventually(lambda: cancel(replicas.one, "never-was")[0] == 404)


def test_neither_words_nor_keys_reach_redis(replicas: Replicas) -> None:
    with replicas.valkey.client().monitor() as monitor:
        for text in ("what does a zanzibar cost", "prove that every zanzibar is cyclic", "and tomorrow's zanzibar?"):
            assert replicas.one.chat(text, model="auto")[0] == 200
        status, _ = cancel(replicas.one, "zanz-nobodys")
        assert status == 404
        seen: list[str] = []
        # The question about the cancelled request comes behind everything that the chats have written.
        while not seen or "zanz-nobodys" not in seen[-1]:
            seen.append(str(monitor.next_command()["command"]))
    assert len(seen) > 3
    assert not [command for command in seen if "zanzibar" in command or XAI_KEY in command]
