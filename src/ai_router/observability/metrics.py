"""Prometheus metrics: their registry, and what deciding, speculating, retries and queues count in it.

Metrics of whole requests are in request_metrics. With several workers each process writes its metrics into files of a
common folder (prometheus-client's multiprocess mode), and the process that is scraped adds them all up. Gauges that are
read when scraped cannot work that way: each is read into a plain gauge at every scrape and, where other workers may be
scraped, once a second.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)

from ai_router.resilience.breaker import State
from ai_router.resilience.report import LimiterReport
from ai_router.types import Cost, DecidedBy, Label, Outcome, SpeculationResult

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the common folder."""
_READ_INTERVAL_S = 1.0
_HEAD_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1)
_CLASSIFIER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
CONFIDENCE_BUCKETS = (*(n / 20 for n in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.999)
"""Finer towards 1, where most confidences are."""

Mode = Literal["livesum", "livemax", "livemin", "livemostrecent"]
"""How the values of a gauge in several living processes become one: their sum, largest, smallest or newest."""

GaugeReader = Callable[[], Iterable[tuple[Sequence[str], float]]]
"""Returns, for each child of a gauge, the values of its labels and its value."""


class Metrics:
    """The registry of all metrics of this application; ``watch`` adds gauges that are read when scraped."""

    def __init__(self, shared_folder: Path | None = None) -> None:
        """``shared_folder``: where all worker processes keep their values; None where there is one worker."""
        self._shared_folder = shared_folder
        if shared_folder is not None:
            # prometheus-client chooses this when it is imported; set later, it holds for metrics made from now on.
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        # Else each child has a second series with the time at which it was made, which nothing here uses.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        if shared_folder is None:
            ProcessCollector(registry=self.registry)
        self._gauges: list[tuple[Gauge, GaugeReader]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_repeatedly, name="gauges", daemon=True)

    def start(self) -> None:
        """With several workers, begin to read the gauges once a second: another worker may be scraped."""
        if self._shared_folder is not None:
            self._thread.start()

    def close(self) -> None:
        """Stop reading them."""
        self._stop.set()

    def watch(
        self, name: str, text: str, read: GaugeReader, labels: Sequence[str] = (), mode: Mode = "livesum"
    ) -> None:
        """Make a gauge of name ``name`` and help ``text`` whose children have the values that ``read`` returns.

        ``labels``: the names of its labels, in the order of ``read``'s values. ``read`` runs on any thread.
        """
        gauge = Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)
        self._gauges.append((gauge, read))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, of all workers."""
        self._read_gauges()
        if self._shared_folder is None:
            return generate_latest(self.registry)
        combined = CollectorRegistry()
        multiprocess.MultiProcessCollector(combined, path=str(self._shared_folder))  # type: ignore[no-untyped-call]
        return generate_latest(combined)

    def _read_gauges(self) -> None:
        for gauge, read in self._gauges:
            for labels, value in read():
                (gauge.labels(*labels) if labels else gauge).set(value)

    def _read_repeatedly(self) -> None:
        while not self._stop.wait(_READ_INTERVAL_S):
            self._read_gauges()


def unlabelled(value: Callable[[], float]) -> GaugeReader:
    """A reader for a gauge without labels."""
    return lambda: [((), value())]


def share_metrics(folder: Path) -> None:
    """Make ``folder`` the empty, common folder of all workers. To be called before they are forked."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ[_FOLDER_VARIABLE] = str(folder)


def forget_worker(pid: int, folder: Path) -> None:
    """The worker ``pid`` has ended: its gauges no longer count, its counters do."""
    multiprocess.mark_process_dead(pid, path=str(folder))  # type: ignore[no-untyped-call]


class RoutingMetrics:
    """Counts decisions and speculations. Label values are those of enums, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter("ai_router_decisions", "Decisions", ["decided_by", "label"], registry=registry)
        self._head_seconds = Histogram(
            "ai_router_head_seconds", "Time the head took", buckets=_HEAD_BUCKETS, registry=registry
        )
        self._head_confidence = Histogram(
            "ai_router_head_confidence", "Confidence of the head", buckets=CONFIDENCE_BUCKETS, registry=registry
        )
        self._classifier_seconds = Histogram(
            "ai_router_classifier_seconds", "Time a classification took", buckets=_CLASSIFIER_BUCKETS, registry=registry
        )
        self._shadow = Counter(
            "ai_router_shadow",
            "Decisions of the head that the classifier was asked about",
            ["label", "agreed"],
            registry=registry,
        )
        self._speculations = Counter(
            "ai_router_speculations", "Speculations, and why there was none", ["result"], registry=registry
        )
        self._saved_seconds = Counter(
            "ai_router_speculation_saved_seconds", "Waiting that speculation spared clients", registry=registry
        )
        self._wasted_seconds = Counter(
            "ai_router_speculation_wasted_seconds", "Time of the primary spent on lost speculations", registry=registry
        )
        self._saved_tokens = Counter(
            "ai_router_speculation_saved_tokens",
            "Tokens there when it was decided (estimate)",
            registry=registry,
        )
        self._wasted_tokens = Counter(
            "ai_router_speculation_wasted_tokens", "Tokens of lost speculations (estimate)", registry=registry
        )

    def guessed(self, confidence: float, seconds: float) -> None:
        """The head has classified a request, sure or not, in ``seconds``."""
        self._head_seconds.observe(seconds)
        self._head_confidence.observe(confidence)

    def shadowed(self, label: Label, *, agreed: bool) -> None:
        """The classifier was asked about a decision of the head, to compare them."""
        self._shadow.labels(label, str(agreed).lower()).inc()

    def speculated(self, result: SpeculationResult, ms: float, tokens: int) -> None:
        """A speculation has ended. ``ms`` and ``tokens`` (an estimate) were saved by a hit, and wasted otherwise."""
        self._speculations.labels(result).inc()
        hit = result is SpeculationResult.HIT
        (self._saved_seconds if hit else self._wasted_seconds).inc(max(ms, 0.0) / 1000)
        (self._saved_tokens if hit else self._wasted_tokens).inc(max(tokens, 0))

    def not_speculated(self, why: str) -> None:
        """The classifier was asked without a speculation; ``why`` is one of the speculation policy's few reasons."""
        self._speculations.labels(f"skipped_{why}").inc()

    def finished(self, outcome: Outcome, _cost: Cost) -> None:
        """Count an outcome."""
        decision = outcome.decision
        if decision is None:
            return
        self._decisions.labels(decision.decided_by, decision.label).inc()
        if decision.decided_by is DecidedBy.CLASSIFIER and decision.duration_ms is not None:
            self._classifier_seconds.observe(decision.duration_ms / 1000)


class JudgeMetrics:
    """Counts judgements, and what they have cost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._judged = Counter(
            "ai_router_judged", "Local answers compared with a cloud's", ["route", "winner"], registry=registry
        )
        self._usd = Counter("ai_router_judge_usd", "Cost of judgements, as far as it is known", registry=registry)

    def judged(self, route: str, winner: str, usd: float | None) -> None:
        """One answer was judged, for ``usd``; None: nobody knows."""
        self._judged.labels(route, winner).inc()
        self._usd.inc(usd or 0.0)


class ResilienceMetrics:
    """Counts retries, fallbacks, waits and cancellations. A backend's label is its limiter's key: a provider, or a tier
    of one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._retries = Counter("ai_router_retries", "Calls made again", ["backend"], registry=registry)
        self._fallbacks = Counter(
            "ai_router_fallbacks", "Calls made elsewhere instead", ["failed", "instead"], registry=registry
        )
        self._waits = Histogram(
            "ai_router_queue_wait_seconds",
            "Time in the queue",
            ["backend", "admitted"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._turned_away = Counter(
            "ai_router_queue_full", "Requests that found the queue full", ["backend"], registry=registry
        )
        self._unread = Counter(
            "ai_router_stream_events_unread",
            "Events that were no strict JSON, passed on unread",
            ["backend"],
            registry=registry,
        )
        self._cancels = Counter(
            "ai_router_cancels", "Requests cancelled, by what they were at", ["phase"], registry=registry
        )
        self._shed = Counter(
            "ai_router_requests_shed", "Requests refused because too many were under way", registry=registry
        )

    def retried(self, backend: str) -> None:
        """A call is made again to the same backend."""
        self._retries.labels(backend).inc()

    def fell_back(self, failed: str, instead: str) -> None:
        """A call is made to the backend ``instead``, since ``failed`` failed."""
        self._fallbacks.labels(failed, instead).inc()

    def waited(self, backend: str, seconds: float, *, admitted: bool) -> None:
        """A request has left the queue after ``seconds``: ``admitted``, or because its time was up."""
        self._waits.labels(backend, str(admitted).lower()).observe(seconds)

    def turned_away(self, backend: str) -> None:
        """A request was refused because the queue was full."""
        self._turned_away.labels(backend).inc()

    def finished(self, outcome: Outcome, _cost: Cost) -> None:
        """Count an outcome."""
        if outcome.events_unread:
            self._unread.labels(outcome.attempts[-1].backend if outcome.attempts else "").inc(outcome.events_unread)

    def cancelled(self, phase: str) -> None:
        """A request was cancelled by a call of the cancel endpoint; ``phase`` is what it was doing."""
        self._cancels.labels(phase).inc()

    def shed(self) -> None:
        """A request was refused because the router had as many as it admits."""
        self._shed.inc()


def watch_limiter(metrics: Metrics, reports: Callable[[], Mapping[str, LimiterReport]]) -> None:
    """Gauges of each backend's limiter: the state of its breaker, calls in flight, requests in the queue."""
    for name, text, value, mode in _LIMITER_GAUGES:
        metrics.watch(name, text, _limiter_reader(reports, value), ["backend"], mode)


def _limiter_reader(
    reports: Callable[[], Mapping[str, LimiterReport]], value: Callable[[LimiterReport], float]
) -> GaugeReader:
    return lambda: [((backend,), value(report)) for backend, report in reports().items()]


_STATES = (State.CLOSED, State.HALF_OPEN, State.OPEN)
_LIMITER_GAUGES: tuple[tuple[str, str, Callable[[LimiterReport], float], Mode], ...] = (
    ("ai_router_breaker_state", "0 closed, 1 half-open, 2 open", lambda report: _STATES.index(report.state), "livemax"),
    ("ai_router_backend_in_flight", "Calls under way", lambda report: report.in_flight, "livesum"),
    ("ai_router_queue_depth", "Requests that wait for it", lambda report: report.waiting, "livesum"),
)
