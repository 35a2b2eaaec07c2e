"""A real Valkey for the module, and processes that share it; here each is a set of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ai_router.shared.peers import RedisPeers
from ai_router.shared.start import Shared, start_shared
from tests.fakes.valkey import RunningValkey, running_valkey

Join = Callable[[], Shared]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def join(valkey: RunningValkey) -> Iterator[Join]:
    """Makes one more process that shares what is at ``valkey``, and hears the others."""
    with ExitStack() as closing:

        def one_more() -> Shared:
            shared = start_shared(valkey.url, closing)
            assert isinstance(shared.peers, RedisPeers)
            assert shared.peers.wait_until_heard(10)
            return shared

        yield one_more
