"""A real Valkey, and accounts of keys in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ai_router.keys.ledger import Ledger
from ai_router.shared.client import SharedClient
from tests.fakes.valkey import RunningValkey, running_valkey


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def ledger(valkey: RunningValkey) -> Iterator[Ledger]:
    client = SharedClient(valkey.url)
    yield Ledger(client)
    client.close()
