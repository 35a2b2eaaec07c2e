"""What follows from which models are in memory, with servers that say so on real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ai_router.config_loading import load_settings
from ai_router.dispatch import models_in_memory as module
from ai_router.dispatch.models_in_memory import ModelsInMemory
from ai_router.dispatch.plan import Plan, primary_candidate
from ai_router.http.session import BackendSession
from ai_router.providers.building import build_registry
from ai_router.providers.registry import CLASSIFIER, Registry
from ai_router.types import Label
from tests.fakes.ollama import CATALOGUE, FakeOllama
from tests.fakes.router import eventually
from tests.fakes.upstream import Plain, fake_upstream

POLL_S = 0.01


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def ollama(closing: ExitStack, *models: str, room: int = 1) -> FakeOllama:
    return FakeOllama(closing.enter_context(fake_upstream()), models, room)


def watching(closing: ExitStack, registry: Registry) -> ModelsInMemory:
    memory = ModelsInMemory(closing.enter_context(BackendSession()), registry, poll_s=POLL_S)
    memory.start()
    closing.callback(memory.close)
    return memory


def two_servers(closing: ExitStack, folder: Path) -> tuple[FakeOllama, FakeOllama, Registry]:
    """The primary's server, another one that may answer instead, and the registry with both."""
    first, second = ollama(closing, "big"), ollama(closing, "small")
    catalogue = folder / "catalogue.toml"
    catalogue.write_text(CATALOGUE.format(url=second.upstream.url))
    settings = {"PRIMARY_URL": first.upstream.url, "PRIMARY_MODEL": "big", "CATALOGUE_FILE": str(catalogue)}
    return first, second, build_registry(load_settings(settings, dotenv=None))


def one_server(closing: ExitStack, room: int) -> tuple[FakeOllama, Registry]:
    """A server with the classifier and the primary, and the registry."""
    server = ollama(closing, "judge", "big", room=room)
    url = server.upstream.url
    settings = {"PRIMARY_URL": url, "PRIMARY_MODEL": "big", "ROUTER_URL": url, "ROUTER_MODEL": "judge"}
    return server, build_registry(load_settings(settings, dotenv=None))


def asked(registry: Registry, memory: ModelsInMemory) -> list[str]:
    """The order in which a plan for MODERATE asks."""
    plan = memory.prefer(Plan(registry.chains["moderate"], "primary"), Label.MODERATE)
    return [candidate.backend.name for candidate in plan.candidates]


def test_a_server_that_does_not_say_is_not_known(closing: ExitStack, tmp_path: Path) -> None:
    first, second, registry = two_servers(closing, tmp_path)
    memory = watching(closing, registry)
    second.load("small")
    first.upstream.on("/api/ps", Plain({"error": "busy"}, status=500))
    assert becomes(lambda: (asked(registry, memory), len(first.upstream.calls("/api/ps")) > 2)[1], expected=True)
    assert memory.in_memory(primary_candidate(registry)) is None
    assert asked(registry, memory) == ["primary", "den"]


def becomes(look: Callable[[], object], expected: object) -> bool:
    return bool(eventually(lambda: look() == expected))


def test_what_is_in_memory_is_asked_before_what_is_not(closing: ExitStack, tmp_path: Path) -> None:
    first, second, registry = two_servers(closing, tmp_path)
    memory = watching(closing, registry)
    second.load("small")
    assert becomes(lambda: asked(registry, memory), ["den", "primary"])
    plan = memory.prefer(Plan(registry.chains["moderate"], "primary"), Label.MODERATE)
    assert (plan.route, plan.note) == ("den", "primary's model is not in memory: den is asked")
    first.load("big")
    assert becomes(lambda: asked(registry, memory), ["primary", "den"])


@pytest.mark.parametrize("label", [Label.COMPLEX, Label.META, "CODE"])
def test_who_answers_for_a_reason_is_not_exchanged(closing: ExitStack, tmp_path: Path, label: str) -> None:
    _, second, registry = two_servers(closing, tmp_path)
    memory = watching(closing, registry)
    second.load("small")
    assert becomes(lambda: asked(registry, memory), ["den", "primary"])
    plan = Plan(registry.chains["moderate"], "code")
    assert memory.prefer(plan, label) is plan


def test_a_server_for_titles_is_no_choice(closing: ExitStack) -> None:
    server = ollama(closing, "big")
    settings = {"PRIMARY_URL": server.upstream.url, "PRIMARY_MODEL": "big", "META_URL": f"{server.upstream.url}/v1"}
    registry = build_registry(load_settings({**settings, "META_MODEL": "tiny"}, dotenv=None))
    assert watching(closing, registry).urls == ()


def test_where_nothing_is_in_memory_or_known_the_order_stays(closing: ExitStack, tmp_path: Path) -> None:
    _, second, registry = two_servers(closing, tmp_path)
    memory = watching(closing, registry)
    assert asked(registry, memory) == ["primary", "den"]
    assert becomes(lambda: memory.in_memory(primary_candidate(registry)), False)
    assert asked(registry, memory) == ["primary", "den"]
    second.load("small")
    assert becomes(lambda: asked(registry, memory), ["den", "primary"])


def test_what_a_server_said_long_ago_is_not_known_any_more(closing: ExitStack, tmp_path: Path) -> None:
    first, _, registry = two_servers(closing, tmp_path)
    now = [0.0]
    memory = ModelsInMemory(closing.enter_context(BackendSession()), registry, lambda: now[0], POLL_S)
    memory.start()
    first.load("big")
    memory.answered("primary")
    assert becomes(lambda: memory.in_memory(primary_candidate(registry)), True)
    memory.close()
    memory._thread.join(5)
    now[0] += module._GOOD_FOR_S + 1
    assert memory.in_memory(primary_candidate(registry)) is None


@pytest.mark.parametrize("loads_for_polls", [0, 3], ids=["quickly", "slowly"])
def test_two_models_that_put_each_other_out_are_not_asked_in_turn(
    closing: ExitStack, caplog: pytest.LogCaptureFixture, loads_for_polls: int
) -> None:
    """Loading a model may take longer than it is until the server is looked at again."""
    server, registry = one_server(closing, room=1)
    memory = watching(closing, registry)

    def loads(model: str, backend: str) -> None:
        seen = len(server.upstream.calls("/api/ps"))
        assert eventually(lambda: len(server.upstream.calls("/api/ps")) >= seen + loads_for_polls)
        server.load(model)
        memory.answered(backend)

    def request() -> str | None:
        if (why := memory.classifier_left_alone()) is None:
            loads("judge", CLASSIFIER)
        loads("big", "primary")
        return why

    memory.answered("primary")
    assert eventually(request) == "its model and the primary's put each other out of memory"
    assert "Classifier and primary put each other out of memory" in caplog.text


def test_two_models_that_fit_are_both_asked(closing: ExitStack) -> None:
    server, registry = one_server(closing, room=2)
    memory = watching(closing, registry)
    looked_at = len(server.upstream.calls("/api/ps"))
    server.load("judge")
    server.load("big")

    def looked_at_again() -> bool:
        memory.answered(CLASSIFIER)
        memory.answered("primary")
        return len(server.upstream.calls("/api/ps")) >= looked_at + 8

    assert eventually(looked_at_again)
    assert memory.classifier_left_alone() is None


def test_a_classifier_that_was_not_asked_may_be_out_of_memory(closing: ExitStack) -> None:
    server, registry = one_server(closing, room=1)
    memory = watching(closing, registry)
    server.load("big")

    def looked_at() -> bool:
        memory.answered("primary")
        return len(server.upstream.calls("/api/ps")) >= 8

    assert eventually(looked_at)
    assert memory.classifier_left_alone() is None


def test_where_there_is_no_choice_there_is_nobody_to_ask_until_there_is_one(closing: ExitStack, tmp_path: Path) -> None:
    server = ollama(closing, "big")
    settings = {"PRIMARY_URL": server.upstream.url, "PRIMARY_MODEL": "big"}
    registry = build_registry(load_settings(settings, dotenv=None))
    memory = watching(closing, registry)
    assert memory.urls == ()
    _, _, other = two_servers(closing, tmp_path)
    registry.adopt(other)
    memory.refresh()
    assert len(memory.urls) == 2
