"""What a running router tells of its requests: sums, sessions, costs, the waterfall, traces."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ai_router.web.access import key_name
from tests.end_to_end.conftest import Connect, Lab
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, completion, finds, says
from tests.fakes.postgres import running_postgres
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Stream, fake_upstream

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STREAM = {"stream": True}


def api(router: RunningRouter, path: str, key: str = "", status: int = 200) -> Any:
    got, _, body = router.get(path, {"Authorization": f"Bearer {key}"} if key else None)
    assert got == status, body
    return orjson.loads(body)


def session_of(router: RunningRouter, headers: Mapping[str, str]) -> Any:
    return api(router, f"/api/sessions/{headers['x-session-id']}")


def xai_charges(ticks: int) -> Any:
    answer = completion("from xai")
    return Plain({**answer, "usage": {**answer["usage"], "cost_in_usd_ticks": ticks}})


def test_a_session_can_be_read_as_soon_as_its_answer_is_there(lab: Lab) -> None:
    _, headers, _ = lab.router.chat("what is love?")
    session = session_of(lab.router, headers)
    assert session["client_messages"] == [{"role": "user", "content": "what is love?"}]
    assert session["response"]["content"] == "from the primary"


@pytest.mark.parametrize("fields", [{}, STREAM, {"model": "primary"}, {"model": "xai", **STREAM}, {"model": "enrich"}])
def test_the_parts_of_a_request_add_up_to_it(lab: Lab, fields: dict[str, Any]) -> None:
    _, headers, _ = lab.router.chat(**fields)
    timings = session_of(lab.router, headers)["timings"]
    assert abs(sum(timings["parts"].values()) + timings["unaccounted_ms"] - timings["total_ms"]) < 0.1
    assert abs(timings["unaccounted_ms"]) < 1.0
    assert {"receive", "decide", "ttft", "stream"} <= set(timings["parts"])


def test_the_parts_say_where_the_time_went(lab: Lab) -> None:
    lab.primary.on(CHAT, says("a", "b", ttft=0.2, gap=0.1))
    lab.xai.on(SEARCH, finds("x", delay=0.3))
    _, headers, _ = lab.router.chat(anew(), model="enrich", stream=True)
    parts = session_of(lab.router, headers)["timings"]["parts"]
    assert parts["enrichment"] >= 300
    assert parts["connect"] + parts["ttft"] >= 200
    assert parts["stream"] >= 100


def test_a_retry_and_its_pause_are_parts_of_their_own(lab: Lab) -> None:
    lab.primary.on(CHAT, Plain({"error": {"message": "oops"}}, status=500, delay=0.05), says("well"))
    _, headers, _ = lab.router.chat(model="primary")
    parts = session_of(lab.router, headers)["timings"]["parts"]
    assert parts["failed"] >= 50
    assert parts["backoff"] >= 5


def test_the_waterfall_until_then_is_in_the_headers(lab: Lab) -> None:
    _, headers, _ = lab.router.chat()
    told = dict(re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"]))
    assert {"receive", "decide", "classify", "speculate", "ttft", "upstream"} <= set(told)


def test_a_provider_s_charge_is_the_cost_and_what_left_the_house_is_in_the_ledger(lab: Lab) -> None:
    lab.xai.on(CHAT, xai_charges(70_000_000))
    before = _ledger(lab.router)
    _, headers, body = lab.router.chat("x" * 100, model="xai")
    session = session_of(lab.router, headers)
    assert (session["cost_usd"], session["cost"]["basis"]) == (0.007, ["provider"])
    left = _ledger(lab.router)
    key = ("xai", "grok-4.7", "answer")
    grown = {
        name: left[key][name] - before.get(key, {}).get(name, 0) for name in ("calls", "bytes_sent", "bytes_received")
    }
    assert grown["calls"] == 1
    assert grown["bytes_sent"] == len(lab.xai.calls(CHAT)[-1].raw_body)
    assert grown["bytes_received"] == len(body)


def _ledger(router: RunningRouter) -> dict[tuple[str, str, str], Any]:
    rows = api(router, "/api/usage")["left_local_network"]
    return {(row["backend"], row["model"], row["purpose"]): row for row in rows}


def test_a_search_is_in_the_ledger_and_its_cost_in_the_session(lab: Lab) -> None:
    found = finds("It rains.")
    lab.xai.on(SEARCH, Plain({**found.payload, "usage": {"input_tokens": 9, "cost_in_usd_ticks": 50_000_000}}))
    _, headers, _ = lab.router.chat(anew(), model="enrich")
    assert session_of(lab.router, headers)["cost_usd"] == 0.005
    assert _ledger(lab.router)["xai", "grok-4.3", "search"]["bytes_sent"] > 0


def test_a_search_that_found_nothing_has_been_charged_for(lab: Lab) -> None:
    nothing = finds("")
    lab.xai.on(SEARCH, Plain({**nothing.payload, "usage": {"input_tokens": 9, "cost_in_usd_ticks": 500_000_000}}))
    _, headers, _ = lab.router.chat(anew(), model="enrich")
    assert session_of(lab.router, headers)["cost_usd"] == 0.05


def test_a_local_answer_costs_seconds_of_the_gpu(lab: Lab) -> None:
    lab.primary.on(CHAT, says("hi", ttft=0.1))
    _, headers, _ = lab.router.chat(model="primary")
    cost = session_of(lab.router, headers)["cost"]
    assert cost["gpu_seconds"] >= 0.1
    assert cost["basis"] == ["local"]
    assert cost["baseline_usd"] > 0


def test_usage_that_a_stream_does_not_tell_is_estimated_and_said_to_be(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "x" * 40}), chunk({}, "stop"), b"data: [DONE]\n\n"]))
    _, headers, _ = lab.router.chat("y" * 80, model="primary", **STREAM)
    assert session_of(lab.router, headers)["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "estimated": True,
    }


def test_the_sessions_can_be_filtered_and_paged(lab: Lab) -> None:
    for number in range(3):
        lab.router.chat(f"needle {number}", model="primary")
    lab.router.chat("needle elsewhere", model="xai")
    found = api(lab.router, "/api/sessions?text=NEEDLE&route=primary&limit=2")
    assert [session["opening"] for session in found["data"]] == ["needle 2", "needle 1"]
    rest = api(lab.router, f"/api/sessions?text=NEEDLE&route=primary&limit=2&before={found['next']}")
    assert [session["opening"] for session in rest["data"]] == ["needle 0"]
    assert api(lab.router, "/api/sessions?text=needle&route=primary&slow=3600000")["data"] == []
    assert len(api(lab.router, "/api/sessions?text=needle&status=ok&slow=0")["data"]) == 4


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/api/sessions?limit=0", "limit"),
        ("/api/sessions?limit=many", "limit"),
        ("/api/sessions?before=../../etc", "before"),
        ("/api/sessions?status=great", "status"),
        ("/api/sessions?slow=very", "slow"),
        ("/api/sessions?roote=primary", "roote"),
        (f"/api/sessions?text={'x' * 201}", "text"),
        ("/api/sessions/..", "session_id"),
        ("/api/sessions/ABCDEF01", "session_id"),
        ("/api/usage?from=yesterday", "from"),
        ("/api/usage?from=2026-11-22&to=2026-11-01", "from"),
        ("/api/usage?by=colour", "by"),
        ("/api/usage?day=today", "day"),
    ],
)
def test_a_bad_parameter_is_named(lab: Lab, path: str, param: str) -> None:
    assert api(lab.router, path, status=400)["error"]["param"] == param


def test_a_session_that_is_not_there_is_404(lab: Lab) -> None:
    assert api(lab.router, "/api/sessions/00000000", status=404)["error"]["code"] == "session_not_found"


def test_the_windows_and_the_targets(lab: Lab) -> None:
    lab.router.chat(**STREAM)
    report = api(lab.router, "/api/metrics")
    hour = report["windows"]["1h"]
    assert hour["routes"]["primary"]["requests"] <= hour["all"]["requests"]
    assert hour["all"]["ttft_ms"]["p95"] > 0
    assert {target["name"] for target in report["targets"]} >= {"ttft_p95", "uptime", "cancel_p99"}
    uptime = next(target for target in report["targets"] if target["name"] == "uptime")
    assert (uptime["actual"], uptime["status"]) == (1.0, "ok")
    assert report["cold_start"]["start_to_first_answer_ms"] > 0


def test_how_long_a_cancellation_took_is_measured(lab: Lab, raw: Connect) -> None:
    lab.primary.on(CHAT, says("a", "b", "c", gap=30))
    client = raw(lab.router.port)
    client.send_chat(model="primary", stream=True)
    session = re.search(rb"x-session-id: (\w+)", client.read_until(b"data:"))
    assert session
    client.leave()
    told = eventually(lambda: lab.router.session(session[1].decode(), 10))
    assert told["status"] == "cancelled"
    assert 0 <= told["timings"]["cancel_ms"] < 300


def test_the_client_s_traceparent_reaches_every_backend(lab: Lab) -> None:
    lab.router.chat(headers={"traceparent": TRACEPARENT})
    assert lab.primary.calls(CHAT)[-1].headers["traceparent"] == TRACEPARENT
    assert lab.classifier.calls(CHAT)[-1].headers["traceparent"] == TRACEPARENT
    lab.router.chat()
    assert "traceparent" not in lab.primary.calls(CHAT)[-1].headers


@pytest.fixture
def primary() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on(CHAT, says("hello ", "there"))
        yield fake


KEYS = {"AI_ROUTER_API_KEYS": "client-key-one,client-key-two", "AI_ROUTER_ADMIN_KEY": "admin-key-three"}


def test_a_client_sees_its_own_and_the_admin_all(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, **KEYS) as router:
        ids = {}
        for name in ("client-key-one", "client-key-two"):
            bearer = {"Authorization": f"Bearer {name}", "OpenAI-Organization": "acme"}
            ids[name] = router.chat(headers=bearer)[1]["x-session-id"]
        for name, session_id in ids.items():
            (mine,) = api(router, "/api/sessions", name)["data"]
            assert mine["session_id"] == session_id
            assert api(router, "/api/usage?by=key,org", name)["total"]["requests"] == 1
        api(router, f"/api/sessions/{ids['client-key-one']}", "client-key-two", status=404)
        api(router, f"/api/sessions/{ids['client-key-one']}", "admin-key-three")
        assert len(api(router, "/api/sessions", "admin-key-three")["data"]) == 2
        groups = api(router, "/api/usage?by=key,org", "admin-key-three")["groups"]
        names = {key_name(name) for name in ids}
        assert {(row["client"], row["organization"]) for row in groups} == {(name, "acme") for name in names}
        for path in ("/api/sessions", "/api/usage", "/api/metrics", "/metrics"):
            assert router.get(path)[0] == 401


def test_a_client_keeps_its_name_when_another_s_key_is_taken_away(tmp_path: Path, primary: FakeUpstream) -> None:
    both = {"PRIMARY_URL": primary.url, "AI_ROUTER_API_KEYS": "alpha-key,beta-key"}
    with running_router(tmp_path, **both) as router:
        for name in ("alpha-key", "beta-key"):
            router.chat(f"of {name[:4]}", {"Authorization": f"Bearer {name}"})
    with running_router(tmp_path, **{**both, "AI_ROUTER_API_KEYS": "beta-key"}) as router:
        assert [session["opening"] for session in api(router, "/api/sessions", "beta-key")["data"]] == ["of beta"]


def test_with_an_admin_key_alone_chats_are_open_and_sessions_are_not(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, AI_ROUTER_ADMIN_KEY="admin-key-three") as router:
        session = router.chat()[1]["x-session-id"]
        for path in ("/api/sessions", f"/api/sessions/{session}", "/api/usage"):
            assert api(router, path, status=403)["error"]["code"] == "forbidden"
        assert api(router, f"/api/sessions/{session}", "admin-key-three")["status"] == "ok"


SECRETS = {
    "XAI_API_KEY": "xai-secret-000001",
    "OPENAI_API_KEY": "oai-secret-000002",
    "GEMINI_API_KEY": "gem-secret-000003",
    "PERPLEXITY_API_KEY": "ppl-secret-000004",
    "OPENROUTER_API_KEY": "opr-secret-000005",
    "AI_ROUTER_API_KEYS": "own-secret-000006,own-secret-000007",
    "AI_ROUTER_ADMIN_KEY": "adm-secret-000008",
}


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_no_key_is_in_any_log_session_error_or_metric(tmp_path: Path, primary: FakeUpstream, log_format: str) -> None:
    keys = [key for value in SECRETS.values() for key in value.split(",")]
    admin = {"Authorization": f"Bearer {keys[-1]}"}
    with fake_upstream() as cloud:
        # A provider that repeats every key that it was ever shown, and those of others.
        cloud.on(CHAT, Plain({"error": {"message": f"bad keys: {' '.join(keys)}"}}, status=401))
        cloud.on(SEARCH, Plain({"error": f"bad keys: {' '.join(keys)}"}, status=400))
        urls = {name.replace("_KEY", "_URL"): cloud.url for name in SECRETS if name.endswith("API_KEY")}
        settings = {**SECRETS, **urls, "PRIMARY_URL": primary.url, "LOG_FORMAT": log_format}
        with running_router(tmp_path, **settings) as router:
            seen = [router.chat(f"my keys are {' '.join(keys)}", admin)[1]]
            answers = [router.chat(headers=admin, model=model) for model in ("xai", "openai/gpt-6-luna", "enrich")]
            answers += [router.chat("x", admin, model=keys[0]), router.chat("x", {"x-api-key": "wrong" + keys[5]})]
            answers += [router.get(path, admin) for path in ("/metrics", "/health", "/api/metrics", "/api/usage")]
            answers += [router.get("/api/sessions", admin)]
            for status, headers, body in answers[:3]:
                assert status in (200, 502), body
                seen.append(headers)
        everything = "".join(f"{headers}{body!r}" for _, headers, body in answers) + str(seen)
        for path in tmp_path.rglob("*"):
            if path.is_file():
                everything += path.read_bytes().decode("utf-8", "replace")
    assert [key for key in keys if key in everything] == []


def test_a_log_in_json_has_the_plain_line_and_its_fields(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, LOG_FORMAT="json") as router:
        router.chat()
        router.chat(model="forged\nREQUEST session=1")
    lines = [orjson.loads(line) for line in (tmp_path / "data/app.log").read_bytes().splitlines()]
    request = next(line for line in lines if line["message"].startswith("REQUEST "))
    assert request["route"] == "primary"
    assert isinstance(request["total_ms"], int)
    assert request["message"].endswith(f"total_ms={request['total_ms']} stream=False")
    assert {"time", "level", "logger"} <= set(request)
    assert sum(line["message"].startswith("REQUEST ") for line in lines) == 2


@pytest.mark.parametrize(("bodies", "kept"), [("redacted", "[13 characters]"), ("off", None)])
def test_bodies_can_be_left_out_of_sessions(
    tmp_path: Path, primary: FakeUpstream, bodies: str, kept: str | None
) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, SESSION_BODIES=bodies) as router:
        _, headers, _ = router.chat("a secret plan")
        session = session_of(router, headers)
        assert (session["client_messages"] or [{"content": None}])[0]["content"] == kept
        assert "there" not in str(session["response"])
        assert session["usage"]["completion_tokens"] == 3
    assert not any(b"secret plan" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def rows_in(folder: Path) -> int:
    with sqlite3.connect(folder / "data/usage.db") as connection:
        count = connection.execute("SELECT count(*) FROM requests").fetchone()[0]
    connection.close()
    return int(count)


def test_a_clean_stop_loses_no_row(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        for _ in range(25):
            assert router.chat()[0] == 200
        assert router.stop(signal.SIGTERM) == 0
    assert rows_in(tmp_path) == 25


def test_a_locked_database_holds_up_no_request_and_gets_its_rows_later(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        router.chat()
        assert api(router, "/api/usage")["total"]["requests"] == 1
        lock = sqlite3.connect(tmp_path / "data/usage.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            assert router.chat()[0] == 200
        assert router.get("/metrics")[0] == 200
        assert eventually(lambda: b"ai_router_usage_rows_waiting 20.0" in router.get("/metrics")[2])
        lock.execute("ROLLBACK")
        lock.close()
        assert eventually(lambda: api(router, "/api/usage")["total"]["requests"] == 21, 20)
        assert api(router, "/api/usage")["rows_waiting"] == 0


def test_what_a_dead_database_did_not_take_is_there_after_the_next_start(tmp_path: Path, primary: FakeUpstream) -> None:
    (tmp_path / "data/usage.db").mkdir(parents=True)
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        for _ in range(5):
            router.chat()
        assert api(router, "/api/usage", status=503)["error"]["code"] == "store_unavailable"
    (tmp_path / "data/usage.db").rmdir()
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        assert eventually(lambda: router.get("/api/usage")[0] == 200)
        assert eventually(lambda: api(router, "/api/usage")["total"]["requests"] == 5)


def test_a_server_that_hangs_holds_up_neither_requests_nor_a_stop_and_gets_its_rows_later(
    tmp_path: Path, primary: FakeUpstream
) -> None:
    with running_postgres(tmp_path / "pg") as url:
        settings = {"PRIMARY_URL": primary.url, "DATABASE_URL": url}
        with running_router(tmp_path / "router", **settings) as router:
            router.chat()
            assert api(router, "/api/usage")["total"]["requests"] == 1
            with stopped(tmp_path / "pg"):
                assert [router.chat()[0] for _ in range(10)] == [200] * 10
                assert api(router, "/api/usage", status=503)["error"]["code"] == "store_unavailable"
                assert router.get("/metrics")[0] == 200
                assert router.stop(signal.SIGTERM) == 0
        with running_router(tmp_path / "router", **settings) as router:
            assert eventually(lambda: router.get("/api/usage")[0] == 200)
            assert eventually(lambda: api(router, "/api/usage")["total"]["requests"] == 11)


@contextmanager
def stopped(folder: Path) -> Iterator[None]:
    """Every process of the PostgreSQL in ``folder`` stands still: its connections stay open, and nobody answers."""
    first = int((folder / "postmaster.pid").read_text().split()[0])
    family = [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            os.kill(pid, signal.SIGCONT)


def test_what_a_client_or_a_backend_says_cannot_keep_rows_out(tmp_path: Path, primary: FakeUpstream) -> None:
    answer = completion("hi")
    usage = {"prompt_tokens": 1e30, "completion_tokens": -5, "total_tokens": "x"}
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        primary.on(CHAT, Plain({**answer, "usage": usage}), says("well"))
        router.chat()
        router.chat(model="primary/a\u0000b")
        router.chat()
        assert api(router, "/api/usage")["total"]["requests"] == 3
        assert api(router, "/api/usage?by=model")["rows_waiting"] == 0
    assert rows_in(tmp_path) == 3


def test_look_ups_do_not_take_the_threads_of_everybody_else(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, THREADS="16") as router:
        router.chat()
        (tmp_path / "data/sessions/20991231T000000.000000Z-00000000.json").write_bytes(b"{" * 10)
        with ThreadPoolExecutor(60) as pool:
            looked = list(pool.map(lambda _: router.get("/api/usage?by=day,route,model,client")[0], range(60)))
            assert router.get("/health/live")[0] == 200
    assert set(looked) <= {200, 503}
    assert 200 in looked


def test_requests_that_end_before_they_are_one_are_counted(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, AI_ROUTER_API_KEYS="own-key") as router:
        own = {"Authorization": "Bearer own-key"}
        router.post(b"{", own)
        router.chat()
        told = router.get("/metrics", own)[2]
    assert b'ai_router_errors_total{code="invalid_json",fault="client",route="none"} 1.0' in told
    assert b'ai_router_errors_total{code="invalid_api_key",fault="client",route="none"} 1.0' in told


def test_the_windows_remember_what_was_before_a_restart(tmp_path: Path, primary: FakeUpstream) -> None:
    def asked(router: RunningRouter) -> Any:
        return api(router, "/api/metrics")["windows"]["24h"]["all"]["requests"]

    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        router.chat()
        assert asked(router) == 1
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        router.chat()
        assert eventually(lambda: asked(router) == 2)


def test_names_that_clients_make_up_for_models_do_not_add_up(tmp_path: Path, primary: FakeUpstream) -> None:
    def all_pages(router: RunningRouter) -> int:
        return sum(len(router.get(page)[2]) for page in ("/metrics", "/api/metrics"))

    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        router.chat(model="primary/first")
        before = all_pages(router)
        for number in range(200):
            assert router.chat(model=f"primary/{number:0240}")[0] == 200
        assert router.chat(model="primary/" + "x" * 150_000)[0] == 400
        assert all_pages(router) < before + 30_000
    with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
        router.chat(model="primary/first")
        assert all_pages(router) < before + 30_000


def test_without_telemetry_sessions_are_written_and_nothing_else(tmp_path: Path, primary: FakeUpstream) -> None:
    with running_router(tmp_path, PRIMARY_URL=primary.url, TELEMETRY="off") as router:
        _, headers, _ = router.chat()
        assert session_of(router, headers)["status"] == "ok"
        assert b"gen_ai_server_request_duration" not in router.get("/metrics")[2]
        assert api(router, "/api/usage", status=503)["error"]["code"] == "store_unavailable"
    assert not (tmp_path / "data/usage.db").exists()


def test_spans_of_a_request_reach_a_collector_and_its_trace_the_backend(tmp_path: Path, primary: FakeUpstream) -> None:
    with fake_upstream() as collector:
        collector.on("/v1/traces", Plain({}))
        settings = {"TRACING": "on", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with running_router(tmp_path, PRIMARY_URL=primary.url, **settings) as router:
            _, headers, _ = router.chat(headers={"traceparent": TRACEPARENT}, model="primary", **STREAM)
            trace_id = session_of(router, headers)["trace_id"]
        sent = [ExportTraceServiceRequest.FromString(call.raw_body) for call in collector.calls("/v1/traces")]
    spans = [s for batch in sent for r in batch.resource_spans for scope in r.scope_spans for s in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {trace_id} == {TRACEPARENT.split("-")[1]}
    (root,) = [span for span in spans if span.parent_span_id.hex() == TRACEPARENT.split("-")[2]]
    assert {span.name for span in spans if span.parent_span_id == root.span_id} >= {"decide", "relay"}
    told = primary.calls(CHAT)[-1].headers["traceparent"]
    assert any(told.split("-")[2] == span.span_id.hex() for span in spans)


def test_a_collector_that_is_not_there_disturbs_nobody(tmp_path: Path, primary: FakeUpstream) -> None:
    settings = {"TRACING": "on", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with running_router(tmp_path, PRIMARY_URL=primary.url, **settings) as router:
        assert [router.chat()[0] for _ in range(5)] == [200] * 5
