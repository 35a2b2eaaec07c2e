"""Backends that fail half-way, and requests that no backend should ever see."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.conftest import Connect, Lab, let_wait
from tests.fakes.personas import CHAT, DONE, chunk, completion, event, says
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Recorded, Reply, Slam, Stream, fake_upstream

DEEP = b"[" * 400 + b"]" * 400
"""More than orjson writes, less than it reads."""

FIRST = chunk({"content": "first"})


def last_error(body: bytes) -> dict[str, object]:
    """The error event that a broken stream must end with."""
    last = body.strip().split(b"\n\n")[-1]
    assert last.startswith(b"data: {"), body
    return orjson.loads(last[6:])["error"]


# Connections that went dark while they were idle


@pytest.mark.parametrize("stream", [False, True])
def test_an_idle_connection_that_went_dark_costs_one_timeout_and_no_answer(
    tmp_path: Path, upstream: FakeUpstream, stream: bool
) -> None:
    settings = {"PRIMARY_URL": upstream.url, "FAST_ROUTING": "off", "PLAIN_TIMEOUT_S": "1", "PRIMARY_TTFT_S": "1"}
    upstream.on(CHAT, says("one"), Hang(), says("two"))
    with running_router(tmp_path, **settings) as router:
        assert b"one" in router.chat(model="primary")[2]
        status, headers, body = router.chat(model="primary", stream=stream)
        assert (status, b"two" in body) == (200, True)
        connections = [call.connection for call in upstream.calls(CHAT)]
        assert connections == [1, 1, 2]
        steps = router.session(headers["x-session-id"])["steps"]
        assert [step["kind"] for step in steps if step["kind"] in ("retry", "fallback")] == ["retry"]


def test_dark_connections_do_not_open_the_breaker_and_a_backend_that_hangs_is_asked_twice_once(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    settings = {"PRIMARY_URL": upstream.url, "FAST_ROUTING": "off", "PLAIN_TIMEOUT_S": "1"}
    upstream.on(CHAT, says("one"), Hang())
    with running_router(tmp_path, **settings) as router:
        assert router.chat(model="primary")[0] == 200
        assert [router.chat(model="primary")[0] for _ in range(2)] == [504, 504]
        assert [call.connection for call in upstream.calls(CHAT)] == [1, 1, 2, 3]


# One body that a backend cannot digest


def test_what_one_client_sends_again_and_again_stops_nobody_else(tmp_path: Path, upstream: FakeUpstream) -> None:
    def reply(request: Recorded) -> Reply:
        if request.body["messages"][-1]["content"] == "poison":
            return Plain({"error": {"message": "CUDA error"}}, status=500)
        return Plain(completion("hi"))

    upstream.on(CHAT, reply)
    settings = {"PRIMARY_URL": upstream.url, "FAST_ROUTING": "off", "BACKOFF_S": "0.01"}
    with running_router(tmp_path, **settings) as router:
        for _ in range(4):
            assert router.chat("poison", model="primary")[0] == 502
        assert len(upstream.calls(CHAT)) == 12, "each is retried twice"
        assert orjson.loads(router.get("/health")[2])["backends"]["primary"]["breaker"] == "closed"
        assert router.chat("well", model="primary")[0] == 200
        for number in range(5):
            router.chat(f"poison {number}", model="primary")
        assert router.chat("well", model="primary")[0] == 200


def test_what_llama_cpp_refuses_with_a_500_is_refused_at_once(tmp_path: Path, upstream: FakeUpstream) -> None:
    message = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    upstream.on(CHAT, Plain({"error": {"code": 500, "message": message, "type": "server_error"}}, status=500))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        for number in range(8):
            status, _, body = router.chat(f"look {number}", model="primary", stream=number % 2 == 0)
            assert (status, message.encode() in body) == (400, True)
        assert len(upstream.calls(CHAT)) == 8
        assert orjson.loads(router.get("/health")[2])["backends"]["primary"]["breaker"] == "closed"


# Mid-stream


@pytest.mark.parametrize(
    "broken",
    [
        Stream([FIRST], ending="reset"),
        Stream([FIRST], ending="truncate"),
        Stream([FIRST], ending="end"),
        Stream([FIRST, b"data: {half an eve"], ending="end"),
    ],
    ids=["reset", "truncated", "no finish_reason", "half an event"],
)
def test_a_stream_that_dies_ends_with_an_error_and_never_with_done(lab: Lab, broken: Stream) -> None:
    lab.primary.on(CHAT, broken)
    _, headers, body = lab.router.chat(stream=True)
    assert body.startswith(FIRST)
    assert b"[DONE]" not in body
    assert b"half" not in body
    error = last_error(body)
    assert error["code"] == "upstream_broken"
    assert "NVIDIA-Nemotron-3-Nano-30B" in str(error["message"])
    assert not lab.xai.calls(CHAT), "another model's text must not be spliced in"
    session = lab.router.session(headers["x-session-id"])
    assert (session["status"], session["response"]["content"]) == ("error", "first")


def test_an_error_event_in_the_middle_is_passed_on_in_the_envelope(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([FIRST, event({"error": "CUDA out of memory"}), DONE], gap=0.05))
    body = lab.router.chat(stream=True)[2]
    assert body.startswith(FIRST)
    assert b"[DONE]" not in body
    assert "CUDA out of memory" in str(last_error(body)["message"])


def test_an_event_that_is_no_strict_json_is_passed_on_unread(lab: Lab) -> None:
    odd = [b"data: {oops\n\n", b'data: {"choices":[{"index":0,"delta":{"content":"x"},"logprobs":-Infinity}]}\n\n']
    lab.primary.on(CHAT, Stream([FIRST, *odd, b"data:\n\n", chunk({}, "stop"), DONE]))
    _, headers, body = lab.router.chat(stream=True)
    assert body == FIRST + b"".join(odd) + chunk({}, "stop") + DONE
    assert lab.router.session(headers["x-session-id"])["response"]["content"] == "firstx"
    lab.router.wait_for_log(r"Provider stream: primary unread=2 events that are no strict JSON")


def test_half_a_character_in_each_of_two_events_reaches_the_client_and_is_whole_in_the_session(lab: Lab) -> None:
    halves = [b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n']
    halves.append(halves[0].replace(b"ud83d", b"ude00"))
    lab.primary.on(CHAT, Stream([*halves, chunk({}, "stop"), DONE]))
    _, headers, body = lab.router.chat(stream=True)
    assert body == b"".join(halves) + chunk({}, "stop") + DONE
    assert lab.router.session(headers["x-session-id"])["response"]["content"] == "\U0001f600"


def test_where_one_of_two_choices_is_cut_off_the_stream_has_no_clean_end(lab: Lab) -> None:
    def of(index: int, delta: dict[str, str], finish: str | None = None) -> bytes:
        return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})

    begun = [of(0, {"content": "a"}), of(1, {"content": "b"}), of(0, {}, "stop")]
    lab.primary.on(CHAT, Stream(begun))
    body = lab.router.chat(stream=True, n=2)[2]
    assert b"[DONE]" not in body
    assert last_error(body)["code"] == "upstream_broken"
    lab.primary.on(CHAT, Stream([*begun, of(1, {}, "length")]))
    assert lab.router.chat(stream=True, n=2)[2].endswith(of(1, {}, "length") + DONE), "[DONE] is supplied"


def test_a_tool_call_without_an_index_is_given_one(lab: Lab) -> None:
    first = {"id": "c1", "type": "function", "function": {"name": "a", "arguments": '{"x"'}}
    rest, other = {"id": "", "function": {"arguments": ":1}"}}, {**first, "id": "c2"}
    calls = [event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}) for call in (first, rest, other)]
    lab.primary.on(CHAT, Stream([*calls, chunk({}, "tool_calls"), DONE]))
    _, headers, body = lab.router.chat(stream=True)
    told = [orjson.loads(line[6:]) for line in body.split(b"\n\n") if b'tool_calls":[' in line]
    assert [call["choices"][0]["delta"]["tool_calls"][0]["index"] for call in told] == [0, 0, 1]
    kept = lab.router.session(headers["x-session-id"])["response"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in kept] == [("c1", '{"x":1}'), ("c2", '{"x"')]


@pytest.mark.parametrize("choices", [[], [None], [{}]])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_choice_is_none(lab: Lab, choices: list[object], stream: bool) -> None:
    told = {"id": "x", "object": "chat.completion", "model": "m", "choices": choices}
    lab.primary.on(CHAT, Stream([event(told), DONE]) if stream else Plain(told))
    lab.xai.on(CHAT, says("from the cloud"))
    status, _, body = lab.router.chat(stream=stream)
    assert status == 200
    assert b"from" in body
    assert b"cloud" in body


@pytest.mark.parametrize("status", [200, 201])
def test_a_whole_answer_for_a_stream_is_converted_and_not_asked_for_again(lab: Lab, status: int) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    message = {"role": "assistant", "content": "hi", "tool_calls": [call]}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    told = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage}
    lab.primary.on(CHAT, Plain({**told, "object": "chat.completion", "model": "m"}, status=status))
    got, headers, body = lab.router.chat(stream=True)
    assert (got, len(lab.primary.calls(CHAT))) == (200, 1)
    first = orjson.loads(body.split(b"\n\n")[0][6:])
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {**message, "tool_calls": [{"index": 0, **call}]}
    assert body.endswith(DONE)
    session = lab.router.session(headers["x-session-id"])
    assert (session["status"], session["usage"]["total_tokens"]) == ("ok", 3)


def test_events_for_a_plain_answer_are_put_together(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([FIRST, chunk({"content": " and last"}), chunk({}, "stop"), DONE]))
    status, _, body = lab.router.chat()
    assert (status, len(lab.primary.calls(CHAT))) == (200, 1)
    told = orjson.loads(body)
    assert told["object"] == "chat.completion"
    assert told["choices"][0]["message"]["content"] == "first and last"
    assert told["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("ending", ["reset", "truncate", "hang"])
def test_done_is_the_end_whatever_the_backend_does_then(lab: Lab, ending: str) -> None:
    lab.primary.on(CHAT, Stream([FIRST, chunk({}, "stop"), DONE], ending=ending))
    _, headers, body = lab.router.chat(stream=True)
    assert body.endswith(DONE)
    assert lab.router.session(headers["x-session-id"])["status"] == "ok"


@pytest.mark.parametrize("ending", ["end", "hang"])
def test_done_before_any_data_is_no_answer_and_the_next_backend_is_asked(lab: Lab, ending: str) -> None:
    lab.primary.on(CHAT, Stream([DONE], ending=ending))
    _, headers, _ = lab.router.chat(stream=True)
    assert headers["x-router-route"] == "xai"


def test_a_bare_error_in_a_stream_s_place_keeps_its_message(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([b'{"error": {"message": "context too long"}}']))
    _, headers, _ = lab.router.chat(stream=True)
    assert "context too long" in headers["x-router-reason"]


def test_a_last_event_without_its_blank_line_is_an_event(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "all"}, "stop").rstrip()]))
    assert lab.router.chat(stream=True)[2] == chunk({"content": "all"}, "stop") + DONE


def test_an_endless_line_is_an_error(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([FIRST, *[b"data: " + b"x" * 65536] * 260], ending="hang"))
    assert last_error(lab.router.chat(stream=True)[2])["code"] == "upstream_broken"
    assert lab.primary.wait_for(CHAT).gone.wait(5)


@pytest.mark.parametrize("end", [b"", b"data: [DONE] \n\n", b"data:[DONE]\n\n"])
def test_a_finish_reason_is_an_end_and_done_is_supplied(lab: Lab, end: bytes) -> None:
    lab.primary.on(CHAT, Stream([FIRST, chunk({}, "stop"), end]))
    assert lab.router.chat(stream=True)[2] == FIRST + chunk({}, "stop") + DONE


def test_a_backend_that_will_not_hang_up_after_done_does_not_keep_the_client(lab: Lab) -> None:
    lab.primary.on(CHAT, Stream([FIRST, chunk({}, "stop"), DONE], ending="hang"))
    _, headers, body = lab.router.chat(stream=True)
    assert body.endswith(DONE)
    assert lab.router.session(headers["x-session-id"])["status"] == "ok"


# Before the first byte


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_slammed_connection_is_a_failure_and_the_next_backend_answers(lab: Lab, stream: bool) -> None:
    lab.primary.on(CHAT, Slam())
    _, headers, _ = lab.router.chat(stream=stream)
    assert headers["x-router-route"] == "xai"


def test_a_request_on_an_idle_connection_is_sent_once_more_where_no_byte_of_an_answer_came(lab: Lab) -> None:
    lab.router.chat(model="primary")
    lab.primary.on(CHAT, Slam(delay=0.5))
    assert lab.router.chat(model="primary")[0] == 502
    assert len(lab.primary.calls(CHAT)) == 3


def test_an_idle_connection_that_the_backend_closed_is_replaced(lab: Lab) -> None:
    lab.router.chat(model="primary")
    lab.primary.on(CHAT, Slam(), says("second try"))
    status, _, _ = lab.router.chat(model="primary")
    assert status == 200
    assert len(lab.primary.calls(CHAT)) == 3


@pytest.fixture
def short_fuse(tmp_path: Path, upstream: FakeUpstream) -> Iterator[RunningRouter]:
    """A router with deadlines short enough to wait for, and a primary only."""
    settings = {
        "PRIMARY_TTFT_S": "0.4",
        "STREAM_IDLE_S": "0.4",
        "REQUEST_TIMEOUT_S": "1.5",
        "BODY_TIMEOUT_S": "0.5",
        "WRITE_TIMEOUT_S": "0.5",
        "MAX_BODY_MB": "1",
    }
    with running_router(tmp_path, PRIMARY_URL=upstream.url, **settings) as router:
        yield router


def test_no_first_byte_in_time_is_504_and_the_backend_is_left(
    short_fuse: RunningRouter, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, Hang())
    status, _, body = short_fuse.chat(stream=True)
    assert status == 504
    assert "no first byte within 0.4 s" in orjson.loads(body)["error"]["message"]
    assert upstream.wait_for(CHAT).gone.wait(5)


def test_comments_do_not_put_the_first_byte_deadline_off(short_fuse: RunningRouter, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([b": processing\n\n"] * 100, gap=0.05))
    assert short_fuse.chat(stream=True)[0] == 504


def test_a_plain_answer_that_hangs_leaves_time_for_the_next_backend(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Hang())
    with fake_upstream() as xai:
        xai.on(CHAT, says("from xai"))
        settings = {"XAI_API_URL": xai.url, "XAI_API_KEY": "k", "PLAIN_TIMEOUT_S": "0.5"}
        with running_router(tmp_path, PRIMARY_URL=upstream.url, **settings) as router:
            status, headers, _ = router.chat()
            assert (status, headers["x-router-route"]) == (200, "xai")
            assert "primary failed (no complete answer within 0.5 s)" in headers["x-router-reason"]


def test_a_plain_answer_may_take_longer_than_a_stream_s_first_byte(
    short_fuse: RunningRouter, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, says("slowly", ttft=0.8))
    assert short_fuse.chat()[0] == 200


def test_a_plain_answer_that_never_comes_is_504_at_the_total_deadline(
    short_fuse: RunningRouter, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, Hang())
    status, _, body = short_fuse.chat()
    assert status == 504
    assert "no complete answer within" in orjson.loads(body)["error"]["message"]


def test_a_stalled_stream_is_an_error(short_fuse: RunningRouter, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([FIRST], ending="hang"))
    error = last_error(short_fuse.chat(stream=True)[2])
    assert error["code"] == "upstream_timeout"
    assert upstream.wait_for(CHAT).gone.wait(5)


def test_a_drip_for_ever_ends_at_the_total_deadline(short_fuse: RunningRouter, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([FIRST] * 1000, gap=0.1))
    body = short_fuse.chat(stream=True)[2]
    assert "no complete answer within" in str(last_error(body)["message"])
    assert upstream.wait_for(CHAT).gone.wait(5)


def test_a_client_that_does_not_read_is_let_go_and_so_is_the_backend(
    short_fuse: RunningRouter, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, Stream([chunk({"content": "x" * 60_000})] * 2000))
    client = raw(short_fuse.port)
    client.send_chat(stream=True)
    request = upstream.wait_for(CHAT)
    assert request.gone.wait(5), "a slow reader held the backend"


def test_a_slow_body_is_408(short_fuse: RunningRouter, raw: Connect) -> None:
    client = raw(short_fuse.port)
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            try:
                client.send(b" ")
            except OSError:
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        answer = client.read_until(b"request_timeout")
    finally:
        stop.set()
        dripping.join()
    assert answer.startswith(b"HTTP/1.1 408")


def test_clients_that_drip_their_headers_do_not_hold_threads_for_ever(short_fuse: RunningRouter, raw: Connect) -> None:
    client = raw(short_fuse.port)
    client.send(b"POST /v1/chat/compl")
    assert client.read_to_end() == b""


def test_an_idle_connection_is_not_taken_for_a_slow_one(
    short_fuse: RunningRouter, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, says("fine"))
    client = raw(short_fuse.port)
    client.send_chat()
    client.read_until(b"}]")
    # Longer than the deadline for headers, shorter than gunicorn's for keep-alive.
    assert not threading.Event().wait(0.8)
    client.received = b""
    client.send_chat()
    assert client.read_until(b"}]").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_a_body_over_the_limit_is_413(short_fuse: RunningRouter, chunked: bool, raw: Connect) -> None:
    client = raw(short_fuse.port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    if chunked:
        client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    else:
        client.send(head + b"Content-Length: 2000000\r\n\r\n")
    answer = client.read_until(b"request_too_large")
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_that_ends_early_is_400(short_fuse: RunningRouter, raw: Connect) -> None:
    client = raw(short_fuse.port)
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert client.read_until(b"}}").startswith(b"HTTP/1.1 400")


def test_backends_that_are_all_down_are_named_at_once(tmp_path: Path) -> None:
    with fake_upstream() as gone:
        url = gone.url
    with running_router(tmp_path, PRIMARY_URL=url) as router:
        started = time.monotonic()
        status, headers, body = router.chat(stream=True)
        assert time.monotonic() - started < 5
        assert status == 502
        assert orjson.loads(body)["error"]["message"].endswith("connection refused")
        assert headers["x-router-reason"].startswith("fast path")
        health = router.get("/health")
        assert health[0] == 503
        report = orjson.loads(health[2])
        assert report["status"] == "unhealthy"
        assert report["backends"]["primary"]["last_error"] == "connection refused"


# Bad input


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"messages": NaN}', "body"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "body"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "body"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "body"),
        (b"[" * 100_000 + b"]" * 100_000, "body"),
        (b"{}", "messages"),
        (b'{"messages": "hi"}', "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": [1]}', "messages[0]"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"content": "a"}]}', "messages[1].role"),
        (b'{"messages": [{"role": "user", "content": 1}]}', "messages[0].content"),
        (b'{"messages": [{"role": "user", "content": ["a"]}]}', "messages[0].content[0]"),
        (b'{"messages": [{"role": "user"}], "stream": "yes"}', "stream"),
        (b'{"messages": [{"role": "user"}], "model": 1}', "model"),
        (b'{"messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
        (b'{"messages": [{"role": "user"}], "max_tokens": true}', "max_tokens"),
        (b'{"messages": [{"role": "user"}], "temperature": "hot"}', "temperature"),
        (b'{"messages": [{"role": "user"}], "stream_options": []}', "stream_options"),
        (b'{"messages": [{"role": "user"}], "tools": {}}', "tools"),
        (b'{"messages": [{"role": "user"}], "tools": ' + DEEP + b"}", "tools"),
        (b'{"messages": [{"role": "user", "content": [{"x": ' + DEEP + b"}]}]}", "messages"),
        (b'{"messages": [{"role": "user"}], "stream_options": {"x": ' + DEEP + b"}}", "stream_options"),
    ],
    ids=lambda value: value[:40].decode("ascii", "replace") if isinstance(value, bytes) else value,
)
def test_bad_input_is_400_naming_the_field(lab: Lab, body: bytes, param: str) -> None:
    status, headers, answer = lab.router.post(body)
    error = orjson.loads(answer)["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]
    assert headers["x-request-id"]
    assert not lab.primary.calls(CHAT)


def test_of_duplicate_keys_the_last_wins_at_the_router_and_at_the_backend(lab: Lab) -> None:
    lab.router.post(
        b'{"model": "xai", "model": "primary", "seed": 1, "seed": 2, "messages": [{"role": "user", "content": "a"}]}'
    )
    assert lab.primary.wait_for(CHAT).raw_body.count(b'"seed"') == 1
    assert lab.primary.calls(CHAT)[0].body["seed"] == 2
    assert not lab.xai.calls(CHAT)


def test_an_error_of_flask_s_own_wears_the_envelope(lab: Lab) -> None:
    status, _, body = lab.router.get("/nowhere")
    assert (status, orjson.loads(body)["error"]["code"]) == (404, "not_found")
    status, _, body = lab.router.get("/v1/chat/completions")
    assert (status, orjson.loads(body)["error"]["code"]) == (405, "method_not_allowed")


# All threads busy


def test_health_answers_while_every_place_is_taken_and_the_next_request_is_told_to_come_back(
    tmp_path: Path, upstream: FakeUpstream, raw: Connect
) -> None:
    upstream.on(CHAT, Hang())
    with running_router(tmp_path, PRIMARY_URL=upstream.url, THREADS="4") as router:
        clients = [raw(router.port) for _ in range(2)]
        for client in clients:
            client.send_chat(stream=True)
        upstream.wait_for(CHAT, 2)
        clients += let_wait(router, raw, 2)
        status, headers, body = router.chat()
        assert (status, headers["retry-after"]) == (503, "1")
        assert orjson.loads(body)["error"]["code"] == "server_is_overloaded"
        status, _, body = router.get("/health")
        assert (status, orjson.loads(body)["in_flight"]) == (200, 2)
        for client in clients:
            client.leave()
        upstream.on(CHAT, says("fine"))
        assert eventually(lambda: router.chat()[0] == 200)


# A session directory that cannot be written


def test_a_session_that_cannot_be_saved_costs_the_session_and_degrades_health(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, says("fine"))
    in_the_way = tmp_path / "a-file"
    in_the_way.write_text("not a directory")
    with running_router(tmp_path, PRIMARY_URL=upstream.url, SESSION_DIR=str(in_the_way)) as router:
        assert router.chat()[0] == 200
        router.wait_for_log(r"Session not saved: .*")
        report = eventually(lambda: (r := orjson.loads(router.get("/health")[2]))["sessions"]["lost"] and r)
        assert report["status"] == "degraded"


def test_a_plain_error_body_of_a_backend_is_quoted(lab: Lab) -> None:
    lab.primary.on(CHAT, Plain(raw=b"upstream exploded", status=418, content_type="text/plain"))
    status, _, body = lab.router.chat(model="primary")
    assert status == 418
    assert "upstream exploded" in orjson.loads(body)["error"]["message"]
