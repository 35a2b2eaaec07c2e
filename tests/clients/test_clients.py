"""Each client asks a question, streams one, goes through a tool loop and gets a structured output."""

from __future__ import annotations

import pytest

from tests.clients.conftest import RunClient
from tests.fakes.router import RunningRouter

CLIENTS = (
    *("anthropic_sdk", "langchain_client", "llm_cli", "ollama_client", "openai_agents", "openai_sdk"),
    "pydantic_agents",
)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_does_all_that_it_is_made_for(client: str, router: RunningRouter, run_client: RunClient) -> None:
    assert run_client(client, router, "everything").strip().endswith("ok")


@pytest.mark.parametrize("client", CLIENTS)
def test_it_talks_to_the_embedded_model(client: str, embedded: RunningRouter, run_client: RunClient) -> None:
    assert run_client(client, embedded, "question").strip().endswith("ok")
