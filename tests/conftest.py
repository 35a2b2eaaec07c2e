"""Fixtures that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ai_router.http.client import UpstreamClient
from ai_router.http.timers import Alarms
from tests.fakes.upstream import FakeUpstream, fake_upstream

# On a fresh checkout the first strategy of texts builds Hypothesis' tables of Unicode, which takes seconds once.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        yield fake


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    alarms = Alarms()
    yield alarms
    alarms.close()


@pytest.fixture
def client(alarms: Alarms) -> Iterator[UpstreamClient]:
    client = UpstreamClient(alarms, pool_size=8)
    yield client
    client.close()
