"""Fixtures that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ai_router.http.client import UpstreamClient
from ai_router.http.session import BackendSession
from ai_router.http.timers import TimerThread
from tests.fakes.upstream import FakeUpstream, fake_upstream

# On a fresh checkout the first strategy of texts builds Hypothesis' tables of Unicode, which takes seconds once.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        yield fake


@pytest.fixture
def timers() -> Iterator[TimerThread]:
    timers = TimerThread()
    yield timers
    timers.close()


@pytest.fixture
def client(timers: TimerThread) -> Iterator[UpstreamClient]:
    client = UpstreamClient(timers, pool_size=8)
    yield client
    client.close()


@pytest.fixture
def backend_session() -> Iterator[BackendSession]:
    with BackendSession() as session:
        yield session
