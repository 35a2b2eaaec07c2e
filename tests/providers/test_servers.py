"""Servers of models are found, and told apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from ai_router.embedded.start import start_embedded
from ai_router.providers.servers import FoundModel, FoundServer, find_servers, size_in
from tests.fakes.upstream import FakeUpstream, Hang, Plain

NOBODY = "http://127.0.0.1:9"


def listed(owner: str, *names: str, **facts: Any) -> Mapping[str, Any]:
    """The body of /v1/models."""
    return {"object": "list", "data": [{"id": name, "owned_by": owner, **facts} for name in names]}


def found(upstream: FakeUpstream, **answers: Mapping[str, Any]) -> tuple[str, list[FoundModel]]:
    """What the server is taken for that answers with these; ``v1_models`` is for /v1/models."""
    for path, body in answers.items():
        upstream.on(f"/{path.replace('_', '/')}", Plain(body))
    (server,) = find_servers([NOBODY, upstream.url])
    assert server.url == upstream.url
    return server.kind, list(server.models)


def test_vllm(upstream: FakeUpstream) -> None:
    models = listed("vllm", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8", max_model_len=131072)
    expected = [FoundModel("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8", 30.0, loaded=True)]
    assert found(upstream, v1_models=models) == ("vLLM", expected)


@pytest.mark.parametrize(
    "name",
    [
        *("Alibaba-NLP/gte-Qwen2-7B-instruct", "intfloat/multilingual-e5-large", "BAAI/bge-m3", "all-MiniLM-L6-v2"),
        *("jinaai/jina-clip-v2", "openai/whisper-large-v3", "hexgrad/Kokoro-82M", "black-forest-labs/FLUX.1-dev"),
        *("stabilityai/stable-diffusion-3.5", "meta-llama/Llama-Guard-3-8B", "colbert-ir/colbertv2.0"),
    ],
)
def test_what_makes_no_text_is_no_model_that_could_answer(upstream: FakeUpstream, name: str) -> None:
    kind, models = found(upstream, v1_models=listed("vllm", name, "gemma-3-27b"))
    assert (kind, [model.name for model in models]) == ("vLLM", ["gemma-3-27b"])


def test_ollama_and_what_of_it_is_in_memory_and_runs_here(upstream: FakeUpstream) -> None:
    tags = [
        {"name": "qwen3:latest", "details": {"family": "qwen3", "parameter_size": "8.2B"}},
        {"name": "gemma3:1b", "details": {"family": "gemma3", "parameter_size": "999.89M"}},
        {"name": "all-minilm:latest", "details": {"family": "bert", "parameter_size": "23M"}},
        {"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443", "details": {}},
        {"name": "nomic-embed-text:latest", "details": {"family": "nomic-bert"}},
    ]
    kind, models = found(
        upstream,
        v1_models=listed("library", *(tag["name"] for tag in tags)),
        api_version={"version": "0.15.0"},
        api_tags={"models": tags},
        api_ps={"models": [{"name": "gemma3:1b"}]},
    )
    assert kind == "Ollama"
    assert models == [
        FoundModel("gemma3:1b", 0.99989, loaded=True),
        FoundModel("qwen3:latest", 8.2, loaded=False),
    ]


def test_lm_studio(upstream: FakeUpstream) -> None:
    native = [
        {"id": "qwen2-vl-7b-instruct", "type": "vlm", "state": "not-loaded"},
        {"id": "gpt-oss", "type": "llm", "state": "loaded"},
        {"id": "text-embedding-nomic", "type": "embeddings", "state": "loaded"},
    ]
    models = listed("organization_owner", *(entry["id"] for entry in native))
    assert found(upstream, v1_models=models, api_v0_models={"data": native}) == (
        "LM Studio",
        [FoundModel("gpt-oss", None, loaded=True), FoundModel("qwen2-vl-7b-instruct", 7.0, loaded=False)],
    )


def test_llama_swap(upstream: FakeUpstream) -> None:
    running = {"running": [{"model": "coder-14b", "state": "ready"}]}
    assert found(upstream, v1_models=listed("llama-swap", "coder-14b", "small-4b"), running=running) == (
        "llama-swap",
        [FoundModel("coder-14b", 14.0, loaded=True), FoundModel("small-4b", 4.0, loaded=False)],
    )


def test_llama_cpp_tells_the_size(upstream: FakeUpstream) -> None:
    models = listed("llamacpp", "model.gguf", meta={"n_params": 1_720_574_976})
    assert found(upstream, v1_models=models) == ("llama.cpp", [FoundModel("model.gguf", 1.720574976, loaded=True)])


def test_a_real_llama_cpp(upstream: FakeUpstream, tmp_path: Path) -> None:
    embedded = start_embedded(tmp_path / "log")
    try:
        # The embedded one asks for a key, even for its models.
        assert find_servers([embedded.url]) == [FoundServer(embedded.url, "a server that asks for a key", ())]
        bearer = {"Authorization": f"Bearer {embedded.key}"}
        models = requests.get(f"{embedded.url}/v1/models", headers=bearer, timeout=10).json()
    finally:
        embedded.stop()
    # One without a key would answer the same.
    expected = [FoundModel("smollm2-135m-instruct", 0.134515008, loaded=True)]
    assert found(upstream, v1_models=models) == ("llama.cpp", expected)


def test_a_llama_cpp_that_lists_its_models_for_everybody_may_ask_for_a_key(upstream: FakeUpstream) -> None:
    upstream.on("/props", Plain({"error": "Invalid API Key"}, status=401))
    assert found(upstream, v1_models=listed("llamacpp", "m-7b")) == ("a server that asks for a key", [])


def test_a_server_of_no_known_kind_counts_too(upstream: FakeUpstream) -> None:
    assert found(upstream, v1_models=listed("somebody", "m-8x7b")) == (
        "a server with OpenAI's API",
        [FoundModel("m-8x7b", 56.0, loaded=None)],
    )


@pytest.mark.parametrize(
    "answer",
    [
        Plain(listed("ai-router", "auto")),
        Plain({"hello": "world"}),
        Plain(["data"]),
        Plain({"error": "no such path"}, status=404),
        Hang(),
    ],
)
def test_a_router_and_anything_else_are_none(upstream: FakeUpstream, answer: Plain | Hang) -> None:
    upstream.on("/v1/models", answer)
    assert find_servers([upstream.url, NOBODY]) == []


@pytest.mark.parametrize("broken", [None, 3, "text", [None, "x", {}], {"a": 1}])
def test_odd_answers_are_no_models(upstream: FakeUpstream, broken: object) -> None:
    upstream.on("/api/version", Plain({"version": "1"}))
    upstream.on("/api/tags", Plain({"models": broken}))
    upstream.on("/api/ps", Plain({"models": broken}))
    upstream.on("/v1/models", Plain({"data": broken}))
    (server,) = find_servers([upstream.url])
    assert server.models == []


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen3-30B-A3B", 30.0),
        ("mixtral-8x7b-instruct", 56.0),
        ("SmolLM2-135M-Instruct", 0.135),
        ("qwen3:1.7b-q4_K_M", 1.7),
        ("gpt-4.1", None),
        ("phi4", None),
        ("model-8bit", None),
    ],
)
def test_the_size_that_a_name_says(name: str, billions: float | None) -> None:
    assert size_in(name) == billions
