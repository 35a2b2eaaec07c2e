"""Health checks: GET /health of every backend, or its list of models, all at the same time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from ai_router.errors import UpstreamError
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.observability import log_lines
from ai_router.providers.errors import error_from_response
from ai_router.providers.registry import CLASSIFIER, Backend
from ai_router.resilience.breaker import State
from ai_router.resilience.limiter import ConcurrencyLimiter

LIMIT_S = 5.0
"""The longest that a check may take, from the connect to the end of the body."""
CACHE_S = 1.0
"""For so long a report is given out again instead of a new one."""
_MAX_BODY_BYTES = 1 << 20
_NO_SUCH_PATH = (404, 405, 501)

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """The state of one backend, as GET /health shows it.

    ``ok``: the check was answered with 200 in time. ``latency_ms``: how long it took. ``last_error``: the latest error
    of any check, which stays when the backend is well again; None if there was none. ``breaker`` is the state of its
    circuit breaker: closed (requests are sent), half-open (a few are tried) or open (none is sent); ``why`` says why it
    is not closed.
    """

    ok: bool
    latency_ms: float
    last_error: str | None
    breaker: str = State.CLOSED
    why: str | None = None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state of all backends by name, and what it adds up to (see ``overall``).

    ``taken_at`` is when the checks ended, in the checker's monotonic seconds.
    """

    status: str
    backends: Mapping[str, BackendHealth]
    taken_at: float


_MORE_CHECKS = 8
"""Threads for backends that a new catalogue brings."""


class HealthChecker:
    """Makes the reports. Callers at the same time share one, and one is given out again for CACHE_S seconds.

    ``limiter`` knows the breakers; without one all count as closed. Safe from any thread. ``close`` ends its threads.
    """

    def __init__(
        self,
        session: BackendSession,
        backends: Sequence[Backend],
        limiter: ConcurrencyLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self.backends = backends
        """Those that are asked. May be replaced."""
        self._limiter = limiter
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: HealthReport | None = None
        self._pending: Future[HealthReport] | None = None
        self._errors: dict[str, str] = {}
        # Threads of its own: /health must answer while every other pool is busy. Two for each backend, because a check
        # that hangs in a look-up or a connect may still run when the next report is made.
        self._check_threads = ThreadPoolExecutor(
            max_workers=2 * len(backends) + _MORE_CHECKS, thread_name_prefix="health"
        )
        self._report_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="health-report")

    def report(self) -> HealthReport:
        """A report that is at most CACHE_S old. Waits up to LIMIT_S for a new one, which is written to the log."""
        with self._lock:
            if self._latest is not None and self._clock() - self._latest.taken_at < CACHE_S:
                return self._latest
            if self._pending is None:
                self._pending = self._report_thread.submit(self._make_report, logged=True)
            pending = self._pending
        return pending.result()

    def latest(self, max_age_s: float) -> Mapping[str, BackendHealth]:
        """The backends of the last report; empty before the first. Never waits.

        If the report is older than ``max_age_s``, a new one is begun in the background. It is not logged.
        """
        with self._lock:
            latest = self._latest
            stale = latest is None or self._clock() - latest.taken_at > max_age_s
            if stale and self._pending is None:
                # RuntimeError: the checker is closed, and its threads take no more work.
                with contextlib.suppress(RuntimeError):
                    self._pending = self._report_thread.submit(self._make_report, logged=False)
        return {} if latest is None else latest.backends

    def close(self) -> None:
        """End the threads, without waiting for checks that still run."""
        self._report_thread.shutdown(wait=False, cancel_futures=True)
        self._check_threads.shutdown(wait=False, cancel_futures=True)

    def _make_report(self, *, logged: bool) -> HealthReport:
        started = self._clock()
        try:
            checks = {backend.name: self._check_threads.submit(self._check, backend) for backend in self.backends}
            wait(checks.values(), timeout=LIMIT_S)
            backends = {name: self._backend_health(name, check) for name, check in checks.items()}
            report = HealthReport(overall(backends), backends, taken_at=self._clock())
            if logged:
                log_lines.health_checked(report.status, (report.taken_at - started) * 1000)
            self._latest = report
            return report
        finally:
            with self._lock:
                self._pending = None

    def _check(self, backend: Backend) -> tuple[float, str | None]:
        """How long the check took, in ms, and what is wrong in one line; None if nothing is."""
        started = self._clock()
        models = backend.url("/models")
        problem, status = self._problem(
            backend, backend.base_url + backend.health_path if backend.health_path else models
        )
        if status in _NO_SUCH_PATH and backend.health_path:
            # Ollama and LM Studio have no /health.
            problem, _ = self._problem(backend, models)
        return (self._clock() - started) * 1000, problem

    def _problem(self, backend: Backend, url: str) -> tuple[str | None, int | None]:
        """What is wrong in one line, None if nothing is; and the status of the answer, if there was one."""
        upstream_request = UpstreamRequest(
            source=backend.source,
            method="GET",
            url=url,
            timeouts=Timeouts(connect=LIMIT_S, total=LIMIT_S, idle=LIMIT_S),
            headers=backend.headers,
            secret=backend.key,
        )
        try:
            response = self._session.fetch(upstream_request, _MAX_BODY_BYTES)
        except UpstreamError as error:
            return error.detail, None
        if response.status == 200:
            return None, 200
        refusal = error_from_response(response.status, response.headers, response.body, upstream_request)
        return refusal.detail, response.status

    def _backend_health(self, name: str, check: Future[tuple[float, str | None]]) -> BackendHealth:
        latency_ms, problem = check.result() if check.done() else (LIMIT_S * 1000, f"no answer within {LIMIT_S:g} s")
        if problem is not None:
            self._errors[name] = problem
        limiter_report = None if self._limiter is None else self._limiter.report(name)
        return BackendHealth(
            ok=problem is None,
            latency_ms=round(latency_ms, 1),
            last_error=self._errors.get(name),
            breaker=State.CLOSED if limiter_report is None else limiter_report.state,
            why=None if limiter_report is None else limiter_report.why,
        )


def overall(backends: Mapping[str, BackendHealth]) -> str:
    """``healthy`` if every backend is well and gets requests, ``unhealthy`` if none does that could answer a chat, else
    ``degraded``. A backend whose breaker is open gets none, whatever its check says."""
    if all(backend.ok and backend.breaker == State.CLOSED for backend in backends.values()):
        return HEALTHY
    answering = [
        backend.ok and backend.breaker != State.OPEN for name, backend in backends.items() if name != CLASSIFIER
    ]
    return DEGRADED if any(answering) else UNHEALTHY
