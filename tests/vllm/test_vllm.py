"""A real vLLM on this machine's processor, as classifier and as primary. 'make test-vllm' installs it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.clients import RawClient
from tests.fakes.personas import anew
from tests.fakes.router import RunningRouter, eventually, running_router

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".vllm"
NOT_THERE = "VLLM WAS NOT TRIED: it is not installed ('make test-vllm' does that, 2.4 GB)"
_START_S = 240.0
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    if not (VLLM / "model").exists():
        pytest.skip(NOT_THERE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = [
        *(VLLM / "bin/vllm", "serve", VLLM / "model", "--served-model-name", "smol", "--host", "127.0.0.1"),
        *("--port", str(port), "--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=log.parent)
    try:
        url = f"http://127.0.0.1:{port}"
        assert eventually(lambda: _answers(url) or process.poll() is not None, _START_S)
        assert process.poll() is None, log.read_text()[-3000:]
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def router(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    settings = {"ROUTER_URL": vllm, "ROUTER_MODEL": "smol", "PRIMARY_URL": vllm, "PRIMARY_MODEL": "smol"}
    with running_router(tmp_path_factory.mktemp("router"), FAST_ROUTING="off", **settings) as router:
        router.wait_for_log(r"Classifier probed: mode=\w+ in \d+ms", 60)
        yield router


@pytest.fixture
def sdk(router: RunningRouter) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        yield client


def running_there(vllm: str) -> float:
    """How many requests vLLM's own gauge counts."""
    with urllib.request.urlopen(f"{vllm}/metrics", timeout=5) as response:
        found = re.search(rb"^vllm:num_requests_running\{[^}]*\} ([0-9.]+)", response.read(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_it_classifies_and_the_primary_speculates(router: RunningRouter) -> None:
    status, headers, _ = router.chat(anew(), stream=True, max_tokens=5)
    assert status == 200
    assert headers["x-router-decided-by"] == "classifier"
    assert headers["x-router-speculation"] in ("hit", "cancelled")


def test_a_client_that_leaves_is_seen_by_its_gauge(router: RunningRouter, vllm: str) -> None:
    client = RawClient(router.port)
    client.send_chat(text=anew("Tell me a very long story."), model="primary", stream=True, max_tokens=1500)
    client.read_until(b'"content"')
    assert eventually(lambda: running_there(vllm) >= 1)
    client.leave()
    assert eventually(lambda: running_there(vllm) == 0)


def test_responses_are_passed_on_and_a_limit_that_was_raised_too_far_is_asked_anew(sdk: openai.OpenAI) -> None:
    with sdk.responses.with_streaming_response.create(
        model="auto", input=anew(), stream=True, max_output_tokens=8
    ) as raw:
        body = raw.read().decode()
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    answer = sdk.responses.create(model="auto", input=anew(), max_output_tokens=8)
    again = sdk.responses.create(model="auto", input="And?", previous_response_id=answer.id, max_output_tokens=8)
    # What so small a model says, or whether it says anything, is chance.
    assert again.output[0].type == "message"
    assert again.usage is not None
    assert answer.usage is not None
    assert again.usage.input_tokens > answer.usage.input_tokens


def _post(router: RunningRouter, path: str, **payload: Any) -> Any:
    request = urllib.request.Request(
        f"{router.url}{path}", json.dumps(payload).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read())


def test_messages_and_completions_are_passed_on(router: RunningRouter) -> None:
    messages = [{"role": "user", "content": anew()}]
    answer = _post(router, "/v1/messages", model="auto", max_tokens=8, messages=messages)
    assert answer["type"] == "message"
    assert answer["stop_reason"] in ("max_tokens", "end_turn")
    assert _post(router, "/v1/messages/count_tokens", model="auto", messages=messages)["input_tokens"] > 5
    text = _post(router, "/v1/completions", model="auto", prompt="Once upon", max_tokens=4, ignore_eos=True)
    assert text["choices"][0]["text"]


def test_ollamas_api_is_translated_for_it(router: RunningRouter) -> None:
    messages = [{"role": "user", "content": anew()}]
    answer = _post(router, "/api/chat", model="auto", stream=False, messages=messages, options={"num_predict": 8})
    assert answer["message"]["role"] == "assistant"
    assert 0 < answer["eval_count"] <= 8


def ask_for_tool(sdk: openai.OpenAI, name: str) -> Any:
    return sdk.chat.completions.create(
        model="primary",
        messages=[{"role": "user", "content": "The weather in Paris?"}],
        tools=[TOOL],  # type: ignore[list-item]
        tool_choice={"type": "function", "function": {"name": name}},
        max_tokens=200,
        temperature=0,
    )


def test_tools_reach_its_parser(sdk: openai.OpenAI) -> None:
    # Whether so small a model writes a call is chance. That vLLM knows the tools shows in which of them it refuses.
    message = ask_for_tool(sdk, "get_weather").choices[0].message
    assert all(call.function.name == "get_weather" for call in message.tool_calls or ())
    with pytest.raises(openai.BadRequestError, match="does not match any of the specified `tools`"):
        ask_for_tool(sdk, "get_time")


def test_the_list_of_models_has_its_context(sdk: openai.OpenAI) -> None:
    assert eventually(lambda: getattr(sdk.models.retrieve("auto"), "max_model_len", None) == 2048)


def test_it_makes_no_embeddings_and_so_this_process_does(sdk: openai.OpenAI) -> None:
    assert sdk.embeddings.create(model="auto", input="hi").model.startswith("universal-sentence-encoder")
