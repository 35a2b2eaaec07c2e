"""How busy the primary is, as it says itself, and how fast it writes."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

from ai_router.errors import UpstreamError
from ai_router.http.request import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.providers.registry import Backend
from ai_router.types import Outcome, Status

log = logging.getLogger(__name__)

POLL_S = 1.0
_STOP_AFTER_S = 10.0
_NO_GAUGE_POLL_S = 60.0
_TIMEOUT_S = 2.0
_MAX_BODY_BYTES = 4 << 20
_NEWEST_WEIGHT = 0.2
_WAITING_GAUGE = re.compile(
    rb"^(?:vllm:num_requests_waiting|llamacpp:requests_deferred)(?:\{.*\})?\s+(\d+)(?:\.0*)?\s*$", re.M
)
"""The gauges of vLLM 0.33 (one line an engine) and of llama.cpp's server."""


def waiting_in(metrics: bytes) -> int | None:
    """Requests that wait in a backend's queue, out of its Prometheus text; None if it does not say."""
    found = _WAITING_GAUGE.findall(metrics)
    return sum(map(int, found)) if found else None


class PrimaryLoad:
    """Asks the primary's /metrics every second while there is something to decide. Safe from any thread."""

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
        """Requests in the primary's own queue, as of a second ago; None where it does not tell."""

    def keep_polling(self) -> None:
        """Somebody decides by the load: keep looking for a while."""
        self._needed_at = self._clock()
        if not self._polling.is_set():
            self._polling.set()

    def finished(self, outcome: Outcome) -> None:
        """A subscriber of outcomes: learns how fast the primary writes."""
        usage, last = outcome.usage or {}, outcome.attempts[-1] if outcome.attempts else None
        tokens = usage.get("completion_tokens")
        if outcome.status is not Status.OK or last is None or last.backend != self._primary.name:
            return
        writing_s = (last.duration_ms - (last.ttft_ms or 0)) / 1000
        if isinstance(tokens, int) and tokens > 1 and writing_s > 0:
            tokens_per_s, before = tokens / writing_s, self._tokens_per_s
            self._tokens_per_s = before + _NEWEST_WEIGHT * (tokens_per_s - before) if before else tokens_per_s

    def tokens_in(self, seconds: float) -> int:
        """About how many tokens the primary writes in so long; 0 before it was seen writing."""
        return round(max(seconds, 0.0) * self._tokens_per_s)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
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
                # Too busy to say, or down: what it said last stands for now, and soon it is asked again.
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
