"""How busy the primary is: requests in its own queue, from its /metrics, and how many tokens it writes a second."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

from ai_router.errors import UpstreamError
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.providers.registry import Backend
from ai_router.types import Outcome, Status

log = logging.getLogger(__name__)

POLL_S = 1.0
_STOP_AFTER_S = 10.0
"""Polling stops when nobody has needed the load for so long."""
_NO_GAUGE_POLL_S = 60.0
"""How long to leave a primary alone that has no such gauge."""
_TIMEOUT_S = 2.0
_MAX_BODY_BYTES = 4 << 20
_NEWEST_WEIGHT = 0.2
"""What the newest answer counts for in the moving average of tokens a second."""
_WAITING_GAUGE = re.compile(
    rb"^(?:vllm:num_requests_waiting|llamacpp:requests_deferred)(?:\{.*\})?\s+(\d+)(?:\.0*)?\s*$", re.M
)
"""The gauges of vLLM 0.33 (one line for each engine) and of llama.cpp's server."""


def waiting_in(metrics: bytes) -> int | None:
    """Requests that wait in a backend's queue, read from its Prometheus text; None if it has no such gauge."""
    found = _WAITING_GAUGE.findall(metrics)
    return sum(map(int, found)) if found else None


class PrimaryLoad:
    """Polls the primary's GET /metrics every POLL_S, while somebody needs the load, on a thread of its own.

    Safe from any thread. ``start`` begins, ``close`` ends it.
    """

    def __init__(self, session: BackendSession, primary: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._primary = primary
        self._clock = clock
        self._tokens_per_s = 0.0
        self._needed_at = float("-inf")
        self._polling = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="primary-load", daemon=True)
        self.waiting: int | None = None
        """Requests in the primary's own queue, about a second ago; None if unknown: not polled, or no such gauge."""

    def keep_polling(self) -> None:
        """Poll for the next 10 seconds: a decision depends on the load."""
        self._needed_at = self._clock()
        if not self._polling.is_set():
            self._polling.set()

    def finished(self, outcome: Outcome) -> None:
        """Take the speed of an answer of the primary into the average. A subscriber of outcomes."""
        usage, last = outcome.usage or {}, outcome.attempts[-1] if outcome.attempts else None
        tokens = usage.get("completion_tokens")
        if outcome.status is not Status.OK or last is None or last.backend != self._primary.name:
            return
        writing_s = (last.duration_ms - (last.ttft_ms or 0)) / 1000
        if isinstance(tokens, int) and tokens > 1 and writing_s > 0:
            tokens_per_s, before = tokens / writing_s, self._tokens_per_s
            self._tokens_per_s = before + _NEWEST_WEIGHT * (tokens_per_s - before) if before else tokens_per_s

    def tokens_in(self, seconds: float) -> int:
        """About how many tokens the primary writes in ``seconds``; 0 before its first answer."""
        return round(max(seconds, 0.0) * self._tokens_per_s)

    def start(self) -> None:
        """Start the thread, which waits for the first ``keep_polling``."""
        self._thread.start()

    def close(self) -> None:
        """Stop polling for good."""
        self._stopped.set()
        self._polling.set()

    def _poll(self) -> None:
        while True:
            self._polling.wait()
            if self._stopped.is_set():
                return
            if self._clock() - self._needed_at > _STOP_AFTER_S:
                self._polling.clear()
                self.waiting = None
                continue
            try:
                self.waiting = self._read_gauge()
            except UpstreamError:
                # Too busy to answer, or down: the last value stands, and it is asked again soon.
                self._stopped.wait(POLL_S)
            else:
                self._stopped.wait(POLL_S if self.waiting is not None else _NO_GAUGE_POLL_S)

    def _read_gauge(self) -> int | None:
        upstream_request = UpstreamRequest(
            source=self._primary.source,
            method="GET",
            url=f"{self._primary.base_url}/metrics",
            timeouts=Timeouts(connect=_TIMEOUT_S, total=_TIMEOUT_S, idle=_TIMEOUT_S),
            headers=self._primary.headers,
            secret=self._primary.key,
        )
        response = self._session.fetch(upstream_request, _MAX_BODY_BYTES)
        return waiting_in(response.body) if response.status == 200 else None
