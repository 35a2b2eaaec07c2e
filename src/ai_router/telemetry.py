"""Wiring of what is told and kept of requests: log, sessions, metrics, usage, traces."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_router import __version__
from ai_router.config import LogFormat, Settings
from ai_router.dispatch.health import HealthChecker
from ai_router.dispatch.record import Subscriber
from ai_router.errors import RouterError
from ai_router.observability.log import LogWriter
from ai_router.observability.metrics import Metrics, ResilienceMetrics, RoutingMetrics, unlabelled
from ai_router.observability.recorder import Recorder, Sink
from ai_router.observability.redaction import Scrubber
from ai_router.observability.request_metrics import LossMetrics, ModelNames, RequestMetrics
from ai_router.observability.windows import WINDOWS, ColdStart, Windows, preload
from ai_router.providers.pricing import Baseline, CallUsd, Pricing, baseline_of
from ai_router.providers.registry import Registry
from ai_router.shared.all_windows import AllWindows
from ai_router.shared.peers import Peers
from ai_router.storage.session_logger import SessionLogger
from ai_router.storage.usage_rows import SpillFile, rows_of
from ai_router.storage.usage_writer import UsageWriter, open_usage_store
from ai_router.trace_context import Trace, parse_traceparent
from ai_router.types import Cost, Outcome, Status

if TYPE_CHECKING:
    from ai_router.observability.tracing import Tracing
    from ai_router.storage.usage import UsageStore

_UP_FOR_S = 30.0
"""How old the word on a backend may be that /metrics repeats."""
_SEEDED_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the rest of the application tells, and what its readers read. ``usage`` is None with TELEMETRY=off."""

    metrics: Metrics
    routing: RoutingMetrics
    resilience: ResilienceMetrics
    log: LogWriter
    sessions: SessionLogger
    windows: AllWindows
    usage: UsageWriter[UsageStore] | None
    cold_start: ColdStart
    baseline: Baseline | None
    scrubber: Scrubber
    refused: Callable[[RouterError], None]
    """Counts an error that ended a request before it was one."""
    subscriber: Subscriber
    flush: Callable[[], None]
    """Have counted what has ended until now."""
    trace_of: Callable[[str | None], Trace | None]
    cost_of: Callable[[Outcome], Cost]
    call_usd: CallUsd
    know_backends: Callable[[], None]
    """Look again at which backends there are, and what they cost."""
    is_local: Callable[[str], bool]
    """Whether a backend, by its name, is in the local network."""


def start_telemetry(
    settings: Settings, registry: Registry, born: float, sinks: Sequence[Sink], peers: Peers, closing: ExitStack
) -> Telemetry:
    """All of it, running. ``born``: when the first process was started, in seconds since 1970."""
    started = time.time()
    scrubber = Scrubber(settings.secrets)
    log = LogWriter(
        settings.log_path,
        timestamps=settings.log_timestamps,
        json=settings.log_format is LogFormat.JSON,
        scrubber=scrubber,
        max_bytes=settings.log_max_mb << 20,
        keep=settings.log_keep,
    )
    closing.callback(log.close)
    metrics = Metrics(shared_folder(settings))
    metrics.start()
    closing.callback(metrics.close)
    losses = LossMetrics(metrics.registry)
    sessions = SessionLogger(
        settings.session_path, bodies=settings.session_bodies, scrubber=scrubber, on_lost=losses.session
    )
    sessions.start()
    closing.callback(sessions.close)
    routing, resilience = RoutingMetrics(metrics.registry), ResilienceMetrics(metrics.registry)
    windows, earlier, cold_start = Windows(), Windows(), ColdStart(born)
    _watch_start(metrics, cold_start)
    baseline = baseline_of(registry.catalogue, settings.xai_model)
    pricing = Pricing(registry, baseline, settings.usd_per_gpu_s)
    names = ModelNames(_models(registry))
    usage = _usage_writer(settings, born, earlier, names, metrics, losses, closing) if settings.telemetry else None
    tracing = _tracing(scrubber, closing) if settings.tracing else None
    all_sinks: list[Sink] = [*sinks, sessions.record, cold_start.finished, routing.finished, resilience.finished]
    requests = None
    if usage is not None:
        requests = RequestMetrics(metrics.registry, names, pricing.is_local)
        all_sinks += [requests.finished, _counting(pricing, names, windows, usage)]
    if tracing is not None:
        all_sinks.append(tracing.finished)
    recorder = Recorder(pricing.cost, all_sinks, losses.outcome)
    recorder.start()
    closing.callback(recorder.close)
    return Telemetry(
        metrics=metrics,
        routing=routing,
        resilience=resilience,
        log=log,
        sessions=sessions,
        windows=AllWindows(windows, earlier, started, peers),
        usage=usage,
        cold_start=cold_start,
        baseline=baseline,
        scrubber=scrubber,
        refused=(lambda _: None) if requests is None else requests.refused,
        subscriber=recorder.take,
        flush=recorder.flush,
        trace_of=parse_traceparent if tracing is None else tracing.begin,
        cost_of=pricing.cost,
        call_usd=pricing.call_usd,
        know_backends=pricing.refresh,
        is_local=pricing.is_local,
    )


def _watch_start(metrics: Metrics, cold_start: ColdStart) -> None:
    metrics.watch("ai_router_info", "1, with the version", lambda: [((__version__,), 1.0)], ["version"], "livemax")
    metrics.watch(
        "ai_router_cold_start_seconds",
        "From the start of the process to its first answer",
        unlabelled(cold_start.seconds),
        mode="livemax",
    )


def _usage_writer(
    settings: Settings,
    born: float,
    windows: Windows,
    names: ModelNames,
    metrics: Metrics,
    losses: LossMetrics,
    closing: ExitStack,
) -> UsageWriter[UsageStore]:
    usage = UsageWriter(
        _seeding(settings.usage_database, born, windows, names),
        SpillFile(settings.data_dir / "usage-unsaved.jsonl"),
        keep_days=settings.usage_days,
        on_lost=losses.rows,
    )
    usage.start()
    closing.callback(usage.close)
    metrics.watch("ai_router_usage_rows_waiting", "Rows not in the database", unlabelled(lambda: float(usage.waiting)))
    return usage


def _counting(pricing: Pricing, names: ModelNames, windows: Windows, usage: UsageWriter[UsageStore]) -> Sink:
    """Into the windows of /api/metrics and the rows of /api/usage."""

    def count(outcome: Outcome, cost: Cost) -> None:
        rows = rows_of(outcome, cost, pricing.is_local)
        if rows.request is not None:
            windows.add(_with_label(rows.request, names))
        usage.put(rows)

    return count


def _tracing(scrubber: Scrubber, closing: ExitStack) -> Tracing:
    from ai_router.observability.tracing import Tracing, exporting_processor  # noqa: PLC0415 - an extra, and slow to load

    tracing = Tracing(exporting_processor(), scrubber)
    closing.callback(tracing.close)
    return tracing


def _models(registry: Registry) -> set[str]:
    catalogued = {model for provider in registry.catalogue.providers.values() for model in provider.models}
    return catalogued | {backend.model for backend in registry.backends()}


def shared_folder(settings: Settings) -> Path | None:
    """Where workers keep their metrics for each other; None for a single one."""
    return settings.data_dir / "metrics" if settings.workers > 1 else None


def watch_backends(metrics: Metrics, checker: HealthChecker) -> None:
    """A gauge of who is well, as it was found lately."""

    def reading() -> list[tuple[tuple[str], float]]:
        return [((name,), float(health.ok)) for name, health in checker.latest(_UP_FOR_S).items()]

    metrics.watch("ai_router_backend_up", "1 for a backend that is well", reading, ["backend"], "livemin")


def _seeding(url: str, born: float, windows: Windows, names: ModelNames) -> Callable[[], UsageStore]:
    """Opens the database and, the first time, tells the windows of what had ended before ``born``."""
    seeded = False

    def opened() -> UsageStore:
        nonlocal seeded
        store = open_usage_store(url)
        if not seeded:
            rows = store.since(windows.now() - WINDOWS["24h"], _SEEDED_ROWS)
            preload(windows, [_with_label(row, names) for row in rows], born)
            seeded = True
        return store

    return opened


def _with_label(row: Mapping[str, Any], names: ModelNames) -> Mapping[str, Any]:
    """A row of a request, with a name for its model of which there are only so many."""
    return {**row, "model": names.label(row["model"], answered=row["status"] == Status.OK)}
