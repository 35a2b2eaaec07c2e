"""Asking the backends how they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import responses

from ai_router.dispatch import health
from ai_router.dispatch.health import BackendHealth, HealthChecker, overall
from ai_router.http.session import BackendSession
from ai_router.providers.registry import Backend
from tests.fakes.upstream import FakeUpstream, Hang, Plain, fake_upstream


def backend(name: str, fake: FakeUpstream) -> Backend:
    return Backend(name, fake.url, "m", "/health", ttft_s=1, local=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def three(backend_session: BackendSession) -> Iterator[tuple[list[FakeUpstream], HealthChecker, Clock]]:
    clock = Clock()
    with fake_upstream() as one, fake_upstream() as two, fake_upstream() as three:
        fakes = [one, two, three]
        backends = [backend(name, fake) for name, fake in zip(("classifier", "primary", "xai"), fakes, strict=True)]
        checker = HealthChecker(backend_session, backends, clock=clock)
        yield fakes, checker, clock
        checker.close()


Three = tuple[list[FakeUpstream], HealthChecker, Clock]


def test_all_are_asked_at_the_same_time(three: Three) -> None:
    fakes, checker, _ = three
    together = threading.Barrier(3, timeout=5)

    def meet(_: object) -> Plain:
        together.wait()
        return Plain({})

    for fake in fakes:
        fake.on("/health", meet)
    # One after the other, the first would wait at the barrier until it broke.
    assert checker.report().status == "healthy"


def test_one_report_is_good_for_a_second(three: Three) -> None:
    fakes, checker, clock = three
    checker.report()
    clock.now += 0.9
    checker.report()
    assert len(fakes[0].calls("/health")) == 1
    clock.now += 0.2
    checker.report()
    assert len(fakes[0].calls("/health")) == 2


def test_callers_at_the_same_time_share_a_report(three: Three) -> None:
    fakes, checker, _ = three
    fakes[0].on("/health", Plain({}, delay=0.2))
    callers = [threading.Thread(target=checker.report) for _ in range(10)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(fakes[0].calls("/health")) == 1


def test_backends_that_hang_together_cost_one_limit_not_three(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes, checker, _ = three
    monkeypatch.setattr(health, "LIMIT_S", 0.4)
    for fake in fakes:
        fake.on("/health", Hang())
    started = time.monotonic()
    report = checker.report()
    took = time.monotonic() - started
    assert report.status == "unhealthy"
    assert took < 2 * 0.4, "three limits would be 1.2 s"


def test_the_last_error_stays_when_all_is_well_again(three: Three) -> None:
    fakes, checker, clock = three
    fakes[1].on("/health", Plain({"error": {"message": "loading"}}, status=503), Plain({}))
    first = checker.report().backends["primary"]
    clock.now += 2
    second = checker.report().backends["primary"]
    assert (first.ok, first.last_error) == (False, "HTTP 503: loading")
    assert (second.ok, second.last_error) == (True, "HTTP 503: loading")


@pytest.mark.parametrize(
    ("classifier", "primary", "xai", "status"),
    [
        (True, True, True, "healthy"),
        (False, True, True, "degraded"),
        (True, False, True, "degraded"),
        (True, True, False, "degraded"),
        (True, False, False, "unhealthy"),
    ],
)
def test_the_status_is_what_can_still_be_answered(classifier: bool, primary: bool, xai: bool, status: str) -> None:
    states = {"classifier": classifier, "primary": primary, "xai": xai}
    assert overall({name: BackendHealth(ok, 1.0, None) for name, ok in states.items()}) == status


@pytest.mark.parametrize(
    ("primary", "xai", "status"),
    [
        ("closed", "open", "degraded"),
        ("half-open", "closed", "degraded"),
        ("half-open", "open", "degraded"),
        ("open", "open", "unhealthy"),
    ],
)
def test_who_gets_no_requests_is_not_well_whatever_its_check_says(primary: str, xai: str, status: str) -> None:
    states = {"classifier": "closed", "primary": primary, "xai": xai}
    assert overall({name: BackendHealth(True, 1.0, None, state) for name, state in states.items()}) == status


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"json": {"error": {"message": "loading"}}, "status": 503}, "HTTP 503: loading"),
        ({"body": "<html>", "status": 500}, "HTTP 500: HTTP 500 without an explanation"),
        (
            {"status": 302, "headers": {"Location": "https://login"}},
            "HTTP 302: the address redirects, which is refused",
        ),
        (
            {"json": {"error": "Incorrect API key provided: s3cret"}, "status": 401},
            "HTTP 401: Incorrect API key provided",
        ),
        ({"json": {"error": "s3cret has no more to spend"}, "status": 402}, "HTTP 402: *** has no more to spend"),
        ({"body": b"x" * ((1 << 20) + 1)}, "the answer is longer than 1048576 bytes"),
        ({"body": ConnectionRefusedError()}, "connection refused"),
        ({"body": ConnectionResetError()}, "the connection was closed without an answer"),
    ],
)
@responses.activate
def test_what_is_wrong_is_said_in_one_line_and_without_the_key(
    backend_session: BackendSession, answer: dict[str, Any], problem: str
) -> None:
    responses.get("http://gpu/health", **answer)
    checker = HealthChecker(
        backend_session, [Backend("gpu", "http://gpu", "m", "/health", 1, local=True, key="s3cret")]
    )
    health = checker.report().backends["gpu"]
    checker.close()
    assert (health.ok, health.last_error) == (False, problem)


@responses.activate
def test_a_backend_without_a_health_path_is_asked_for_its_models_with_its_key(backend_session: BackendSession) -> None:
    responses.get(
        "http://cloud/v1/models", json={}, match=[responses.matchers.header_matcher({"Authorization": "Bearer s3cret"})]
    )
    checker = HealthChecker(backend_session, [Backend("xai", "http://cloud", "m", "", 1, local=False, key="s3cret")])
    assert checker.report().status == "healthy"
    checker.close()


@pytest.mark.parametrize(("models", "ok"), [(200, True), (500, False)])
@responses.activate
def test_a_backend_that_has_no_such_path_is_asked_for_its_models(
    backend_session: BackendSession, models: int, ok: bool
) -> None:
    responses.get("http://ollama/health", body="404 page not found", status=404)
    responses.get("http://ollama/v1/models", json={}, status=models)
    checker = HealthChecker(backend_session, [Backend("primary", "http://ollama", "m", "/health", 1, local=True)])
    assert checker.report().backends["primary"].ok is ok
    checker.close()
