"""The CPU default with the real llama.cpp and the real SmolLM2: nothing configured, answers all the same."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import orjson
import pytest

from ai_router.config_loading import load_settings
from ai_router.embedded.start import KEY_VARIABLE, EmbeddedUnavailable, find_weights, start_embedded
from ai_router.providers.building import build_registry
from tests.fakes.clients import RawClient
from tests.fakes.process import command_of
from tests.fakes.router import RunningRouter, eventually, running_router

HELLO = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    with running_router(tmp_path_factory.mktemp("embedded")) as running:
        yield running


@pytest.fixture
def sdk(router: RunningRouter) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def processes_of(router: RunningRouter) -> list[int]:
    """The embedded model's processes, found by the router's process id in their ancestry."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])

    def descends(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == router.process.pid:
                return True
        return False

    return [pid for pid in parents if descends(pid) and "ai_router.embedded" in command_of(pid)]


def metrics_of_model(router: RunningRouter) -> str:
    """The model server's own metrics, asked for with the key in its environment."""
    (server,) = [pid for pid in processes_of(router) if "llama_server" in command_of(pid)]
    environment = dict(
        pair.split("=", 1) for pair in Path(f"/proc/{server}/environ").read_text().split("\0") if "=" in pair
    )
    connection = http.client.HTTPConnection("127.0.0.1", int(command_of(server).split()[5]), timeout=10)
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {environment[KEY_VARIABLE]}"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_a_plain_answer(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="auto", messages=HELLO, max_tokens=12)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12, "the embedded model does not reason: max_tokens is passed on"


def test_a_streamed_answer_with_the_headers_of_the_contract(router: RunningRouter) -> None:
    status, headers, body = router.chat("Say hello.", stream=True, max_tokens=12)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    assert headers["x-router-model"] == "smollm2-135m-instruct"
    assert headers["x-router-decided-by"] == "fast"
    assert headers["x-router-speculation"] == "skipped"


def test_it_answers_a_newcomer_s_first_question_as_well_as_it_can(router: RunningRouter) -> None:
    """Told the date in a system message it answers in French about women."""
    asked = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    status, _, body = router.post(orjson.dumps({**asked, "max_tokens": 16}))
    assert status == 200
    assert "Paris" in orjson.loads(body)["choices"][0]["message"]["content"]


def test_the_embedded_primary_is_not_called_while_the_encoder_needs_the_processor(router: RunningRouter) -> None:
    _, headers, _ = router.chat("make a motto for our ice cream shop in Kiel", max_tokens=4)
    assert (headers["x-router-decided-by"], headers["x-router-speculation"]) == ("fast", "skipped")


def test_a_rule_decides_and_says_so_and_why_it_is_answered_here_all_the_same(router: RunningRouter) -> None:
    _, headers, _ = router.chat("What is the weather in Paris?", max_tokens=4)
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("primary", "fast")
    assert "XAI_API_KEY" in headers["x-router-reason"]


def test_a_cancelled_answer_stops_the_model(router: RunningRouter) -> None:
    client = RawClient(router.port)
    client.send_chat(
        text="Count from one to one thousand.", stream=True, max_tokens=4000, headers="x-request-id: stop-me\r\n"
    )
    client.read_until(b'"content"')
    client.leave()
    router.wait_for_log(r"Request cancelled: session=\w+ the client closed the connection")
    # 4,000 tokens would take it most of a minute.
    assert eventually(lambda: "llamacpp:requests_processing 0" in metrics_of_model(router), 5)


def test_parallel_requests_are_answered(sdk: openai.OpenAI) -> None:
    answers: list[str | None] = []

    def ask() -> None:
        answer = sdk.chat.completions.create(model="auto", messages=HELLO, max_tokens=8)
        answers.append(answer.choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([answer for answer in answers if answer]) == 6


def test_an_error_of_the_model_server_reaches_the_client(router: RunningRouter) -> None:
    status, _, body = router.chat("word " * 20_000, max_tokens=4)
    assert status == 400
    assert "smollm2-135m-instruct" in orjson.loads(body)["error"]["message"]


def test_the_model_listens_on_loopback_only_and_wants_a_key(router: RunningRouter) -> None:
    (server,) = [pid for pid in processes_of(router) if "llama_server" in command_of(pid)]
    port = command_of(server).split()[5]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 401
    connection.close()
    listening = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{int(port):04X} 00000000:0000 0A" in listening


def test_a_model_server_that_dies_is_started_again(router: RunningRouter) -> None:
    (server,) = [pid for pid in processes_of(router) if "llama_server" in command_of(pid)]
    os.kill(server, signal.SIGKILL)
    assert eventually(lambda: router.chat(max_tokens=2)[0] == 200, 30)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_the_model_dies_with_the_router(tmp_path: Path, how: signal.Signals) -> None:
    with running_router(tmp_path) as router:
        model = processes_of(router)
        assert len(model) == 2, "a supervisor and a server"
        router.process.send_signal(how)
        router.process.wait(20)
        assert eventually(lambda: not [pid for pid in model if command_of(pid)], 20)


def test_a_file_of_ones_own_is_served_with_its_own_defaults(tmp_path: Path) -> None:
    own = tmp_path / "My-Model.gguf"
    own.symlink_to(find_weights())
    with running_router(tmp_path, EMBEDDED_MODEL=str(own)) as router:
        status, headers, body = router.chat("Say hello.", max_tokens=3)
        assert (status, headers["x-router-model"]) == (200, "my-model")
        assert orjson.loads(body)["choices"][0]["message"]["content"]
        assert "max_tokens raised" in headers["x-router-warning"], "whether it thinks is not known yet"
        listed = [entry["id"] for entry in orjson.loads(router.get("/v1/models")[2])["data"]]
        assert "primary/my-model" in listed
    settings = {"PRIMARY_URL": "http://127.0.0.1:9", "EMBEDDED_MODEL": str(own)}
    served = load_settings(settings, dotenv=None).model_copy(update={"embedded": True})
    primary = build_registry(served).primary
    assert (primary.defaults, primary.takes_date) == ({}, True)


@pytest.mark.parametrize(("content", "said"), [(None, "is no file"), (b"no model", "did not start")])
def test_a_file_that_is_no_model_ends_the_start_with_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    own = tmp_path / "model.gguf"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(EmbeddedUnavailable, match=said) as caught:
        start_embedded(tmp_path / "embedded.log", own)
    assert "\n" not in str(caught.value)


def test_without_weights_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbeddedUnavailable, match="make setup"):
        start_embedded(tmp_path / "embedded.log")
