"""How busy the primary is: what its own gauge says, polled while decisions depend on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import responses

from ai_router.dispatch import speculation
from ai_router.dispatch.speculation import PrimaryLoad
from ai_router.http.session import BackendSession
from ai_router.providers.registry import Backend

METRICS = "http://gpu/metrics"


def waits_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def load(backend_session: BackendSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrimaryLoad]:
    monkeypatch.setattr(speculation, "POLL_S", 0.01)
    with responses.mock:
        load = PrimaryLoad(backend_session, Backend("primary", "http://gpu", "m", "/health", 1, local=True, key="k"))
        load.start()
        yield load
        load.close()
        load._thread.join()


def test_the_gauge_is_read_while_decisions_depend_on_it(load: PrimaryLoad) -> None:
    responses.get(METRICS, body="llamacpp:requests_deferred 4\n")
    assert load.waiting is None
    load.keep_polling()
    assert waits_until(lambda: load.waiting == 4)
    assert responses.calls[0].request.headers["Authorization"] == "Bearer k"


def test_the_primary_is_not_polled_while_no_decision_depends_on_it(load: PrimaryLoad) -> None:
    time.sleep(0.1)
    assert not responses.calls
    assert load.waiting is None


def test_a_primary_too_busy_to_say_is_as_busy_as_it_said_last(load: PrimaryLoad) -> None:
    responses.get(METRICS, body="vllm:num_requests_waiting 2.0\n")
    responses.get(METRICS, body=TimeoutError())
    load.keep_polling()
    assert waits_until(lambda: len(responses.calls) >= 3)
    assert load.waiting == 2


@pytest.mark.parametrize("answer", [{"status": 404}, {"body": "up 1\n"}], ids=["no metrics", "no such gauge"])
def test_a_primary_without_a_gauge_is_polled_once_a_minute(load: PrimaryLoad, answer: dict[str, str]) -> None:
    responses.get(METRICS, **answer)
    load.keep_polling()
    assert waits_until(lambda: len(responses.calls) == 1)
    time.sleep(0.1)
    assert len(responses.calls) == 1
    assert load.waiting is None
