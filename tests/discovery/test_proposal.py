"""Which model is proposed to answer, and which to decide."""

from __future__ import annotations

import pytest

from ai_router.discovery.proposal import Choice, choices, classifier_beside, settings_of, urls_of
from ai_router.providers.servers import FoundModel, FoundServer


def server(kind: str, *models: tuple[str, float | None, bool], port: int = 8000) -> FoundServer:
    return FoundServer(f"http://127.0.0.1:{port}", kind, [FoundModel(*model) for model in models])


BIG = server("vLLM", ("big-30b", 30.0, True))


def proposed(*servers: FoundServer) -> tuple[str, str | None]:
    """The names of the primary and the classifier."""
    found = choices(servers)
    classifier = classifier_beside(found[0], found)
    return found[0].model.name, classifier and classifier.model.name


def test_what_is_in_memory_answers_before_what_is_larger() -> None:
    ollama = server("Ollama", ("llama3:70b", 70.0, False), ("qwen3:8b", 8.2, True), port=11434)
    assert proposed(ollama) == ("qwen3:8b", None)


def test_a_model_trained_to_decide_beside_it_decides() -> None:
    trained = server("vLLM", ("Nemotron-Orchestrator-8B", 8.0, True), port=8001)
    smaller = server("llama.cpp", ("other-4b", 4.0, True), port=8002)
    assert proposed(BIG, smaller, trained) == ("big-30b", "Nemotron-Orchestrator-8B")
    assert proposed(BIG, smaller) == ("big-30b", "other-4b")


@pytest.mark.parametrize(
    "beside",
    [
        server("llama.cpp", ("tiny", 0.135, True), port=8001),
        server("llama.cpp", ("unknown", None, True), port=8001),
        server("vLLM", ("as-large", 30.0, True), port=8001),
        server("Ollama", ("qwen3:8b", 8.2, False), port=11434),
    ],
)
def test_nothing_else_does(beside: FoundServer) -> None:
    assert proposed(BIG, beside) == ("big-30b", None)


def test_two_models_of_one_server_do_not_push_each_other_out() -> None:
    swap = server("llama-swap", ("coder-30b", 30.0, True), ("small-4b", 4.0, True))
    assert proposed(swap) == ("coder-30b", None)


def test_the_settings() -> None:
    primary, small = BIG.models[0], FoundModel("small-4b", 4.0, loaded=True)
    beside = Choice(server("vLLM", port=8001), small)
    asked = {"PRIMARY_URL": "http://127.0.0.1:8000", "PRIMARY_MODEL": "big-30b"}
    assert settings_of(Choice(BIG, primary), None) == asked
    decides = {"ROUTER_URL": "http://127.0.0.1:8001", "ROUTER_MODEL": "small-4b"}
    assert settings_of(Choice(BIG, primary), beside) == {**asked, **decides}


@pytest.mark.parametrize(
    ("address", "urls"),
    [
        ("gpu", ["http://gpu:1", "http://gpu:2"]),
        ("gpu:8000", ["http://gpu:8000"]),
        ("https://gpu/v1/", ["https://gpu"]),
        ("::1", ["http://[::1]:1", "http://[::1]:2"]),
        ("[::1]", ["http://[::1]:1", "http://[::1]:2"]),
        ("[::1]:8000", ["http://[::1]:8000"]),
    ],
)
def test_the_addresses_that_are_asked(address: str, urls: list[str]) -> None:
    assert urls_of(address, (1, 2)) == urls
