"""Wiring: every object is made here, once, and handed to those that need it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from flask import Flask, g, request
from prometheus_client import CollectorRegistry

from ai_router.api import auth, cancel, health, models, replies
from ai_router.api import metrics as metrics_api
from ai_router.api.admission import Admission
from ai_router.api.chat import ChatEndpoint
from ai_router.api.parsing import Ids
from ai_router.errors import ShuttingDown
from ai_router.execution.attempts import Persistence
from ai_router.execution.cancellation import ClientWatcher
from ai_router.execution.enrichment import WebSearch
from ai_router.execution.forward import Forwarder
from ai_router.execution.health import HealthChecker
from ai_router.execution.inflight import InFlight
from ai_router.execution.pipeline import Pipeline
from ai_router.execution.primary_load import PrimaryLoad
from ai_router.execution.speculating import Speculating
from ai_router.execution.speculation_policy import Budget
from ai_router.providers.registry import CLASSIFIER, Registry, build_registry
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.gates import Gates
from ai_router.resilience.retry import Backoff, RetryBudget
from ai_router.routing.cache import DecisionCache
from ai_router.routing.classifier import Classifier, ClassifierSettings, StartupProbe
from ai_router.routing.conversations import Conversations
from ai_router.routing.fast_path import FastPath
from ai_router.routing.head.store import HeadStore
from ai_router.routing.monitor import Monitor
from ai_router.routing.router import Router
from ai_router.routing.shadow import Shadow
from ai_router.session_logger import SessionLogger
from ai_router.settings import MaxTokensPolicy, Settings
from ai_router.telemetry import timing_log
from ai_router.telemetry.logs import LogWriter
from ai_router.telemetry.metrics import ResilienceMetrics, RoutingMetrics
from ai_router.upstream.alarms import Alarms
from ai_router.upstream.client import UpstreamClient

EXTENSION = "ai_router"
_PARTING_S = 2.0
_CACHED_DECISIONS = 10_000
_REMEMBERED_TURNS = 50_000
_DISAGREEMENT_LIMIT = 0.1
"""Three times what the head's threshold allows at calibration: traffic differs from examples, and from day to day."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What outlives a request and has to be ended with the application."""

    closing: ExitStack = field(default_factory=ExitStack)
    in_flight: InFlight = field(default_factory=InFlight)
    draining: threading.Event = field(default_factory=threading.Event)


def create_app(settings: Settings) -> Flask:
    """The application. ``close_app`` ends its threads and writes what is queued."""
    runtime = Runtime()
    closing = runtime.closing
    registry = build_registry(settings)
    closing.callback(LogWriter(settings.log_path, timestamps=settings.log_timestamps).close)
    alarms = Alarms()
    closing.callback(alarms.close)
    client = UpstreamClient(alarms, pool_size=2 * settings.admitted)
    closing.callback(client.close)
    watcher = ClientWatcher()
    closing.callback(watcher.close)
    # Apart, so that a search never waits behind speculations; twice over, since a lost one takes a moment to end.
    speculations = ThreadPoolExecutor(2 * settings.admitted, thread_name_prefix="speculation")
    closing.callback(speculations.shutdown, wait=False, cancel_futures=True)
    searches = ThreadPoolExecutor(settings.admitted, thread_name_prefix="search")
    closing.callback(searches.shutdown, wait=False, cancel_futures=True)
    sessions = SessionLogger(settings.session_path)
    sessions.start()
    closing.callback(sessions.close)
    collectors = CollectorRegistry()
    metrics = RoutingMetrics(collectors)
    gates = build_gates(settings, registry)
    resilience = ResilienceMetrics(collectors, lambda: {name: gates.report(name) for name in gates.names()})
    classifier = build_classifier(settings, registry, client)
    if classifier is not None:
        closing.callback(classifier.close)
        probe = StartupProbe(classifier)
        probe.start()
        closing.callback(probe.close)
    checker = HealthChecker(client, registry.backends(), gates)
    closing.callback(checker.close)
    admission = Admission(settings.admitted, resilience.shed)
    fast_path = _started_fast_path(settings, classifier, metrics, closing) if settings.fast_routing else None
    load = PrimaryLoad(client, registry.primary)
    load.start()
    closing.callback(load.close)
    pipeline = Pipeline(
        registry=registry,
        router=Router(registry, classifier, fast_path, gates),
        forwarder=Forwarder(
            client,
            registry,
            primary_max_tokens=_primary_max_tokens(settings),
            request_timeout_s=settings.request_timeout_s,
        ),
        search=WebSearch(
            client,
            registry.searchers,
            searches,
            timeout_s=settings.search_timeout_s,
            connect_s=settings.connect_timeout_s,
        ),
        speculations=speculations,
        speculating=Speculating(
            settings.speculation,
            load,
            gates,
            Budget(settings.speculation_budget_s),
            metrics,
            slots=settings.primary_slots,
        ),
        persistence=Persistence(
            gates=gates,
            budget=RetryBudget(lambda: admission.inside),
            backoff=Backoff(settings.backoff_s),
            metrics=resilience,
            queue_s=settings.queue_budget_s,
            total_s=settings.request_timeout_s,
        ),
        cloud_fallback=settings.cloud_fallback,
        keepalive_s=settings.keepalive_s,
    )
    ids = Ids()
    chat = ChatEndpoint(
        pipeline=pipeline,
        admission=admission,
        watcher=watcher,
        alarms=alarms,
        subscribers=(timing_log.finished, sessions.record, metrics.finished, resilience.finished, load.finished),
        ids=ids,
        in_flight=runtime.in_flight,
        max_body=settings.max_body_mb << 20,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        keepalive_s=settings.keepalive_s,
        tell_date=settings.date_context,
    )
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = runtime

    @app.before_request
    def identify() -> None:
        g.request_id = ids.request_id(request.headers.get("x-request-id"))

    auth.init_app(app, settings.api_keys)
    replies.init_app(app)
    app.register_blueprint(chat.blueprint())
    app.register_blueprint(models.blueprint(registry))
    app.register_blueprint(cancel.blueprint(runtime.in_flight, resilience))
    app.register_blueprint(metrics_api.blueprint(metrics))
    app.register_blueprint(health.blueprint(checker, sessions, admission, runtime.draining))
    return app


def close_app(app: Flask) -> None:
    """End the application's threads, last made first; queued sessions and log lines are written. Idempotent."""
    _runtime(app).closing.close()


def drain_app(app: Flask) -> None:
    """The server takes no more connections; /health/ready says so."""
    _runtime(app).draining.set()


def stop_app(app: Flask) -> None:
    """End all requests with an error that their clients can read."""
    drain_app(app)
    _runtime(app).in_flight.abort_all(ShuttingDown("the router is being stopped"), _PARTING_S)


def _runtime(app: Flask) -> Runtime:
    runtime: Runtime = app.extensions[EXTENSION]
    return runtime


def build_gates(settings: Settings, registry: Registry) -> Gates:
    """One gate a backend. With several that answer chats, none of them may take all places."""
    cap = settings.backends_cap if registry.clouds else settings.backend_cap or settings.admitted
    own = {name: backend.cap for name, backend in registry.clouds.items() if backend.cap is not None}
    rules = BreakerRules(
        in_a_row=settings.breaker_failures,
        least_calls=4 * settings.breaker_failures,
        open_s=settings.backoff_s,
        most_open_s=30 * settings.backoff_s,
    )
    return Gates(cap, settings.waiting_room, rules, {CLASSIFIER: settings.admitted, **own})


def build_classifier(settings: Settings, registry: Registry, client: UpstreamClient) -> Classifier | None:
    """The classifier that the settings name, not probed yet; None where there is none."""
    if registry.classifier is None:
        return None
    return Classifier(
        client,
        registry.classifier,
        ClassifierSettings(
            mode=settings.classifier_mode,
            timeout_s=settings.classifier_timeout_s,
            connect_s=settings.connect_timeout_s,
            context_chars=settings.classifier_context_chars,
            at_once=settings.admitted,
        ),
    )


def build_fast_path(
    settings: Settings, heads: HeadStore, monitor: Monitor, metrics: RoutingMetrics, shadow: Shadow | None = None
) -> FastPath:
    """The in-process deciders as the settings want them."""
    return FastPath(
        heads=heads,
        cache=DecisionCache(_CACHED_DECISIONS, settings.decision_cache_s),
        conversations=Conversations(_REMEMBERED_TURNS),
        monitor=monitor,
        metrics=metrics,
        context_chars=settings.classifier_context_chars,
        shadow_asks=shadow,
    )


def _started_fast_path(
    settings: Settings, classifier: Classifier | None, metrics: RoutingMetrics, closing: ExitStack
) -> FastPath:
    monitor = Monitor(_DISAGREEMENT_LIMIT)
    heads = HeadStore(settings.data_dir, lambda head: monitor.renew(head.reference))
    monitor.renew(heads.current.reference)
    heads.start()
    closing.callback(heads.close)
    shadow = None
    if classifier is not None and settings.shadow_share > 0:
        shadow = Shadow(classifier, monitor, metrics, settings.shadow_share)
        shadow.start()
        closing.callback(shadow.close)
    fast_path = build_fast_path(settings, heads, monitor, metrics, shadow)
    unknown = float("nan")
    metrics.watch("ai_router_head_in_service", "1 while the head decides", lambda: float(monitor.in_service))
    metrics.watch(
        "ai_router_head_agreement",
        "Recent agreement with the classifier",
        lambda: _or(monitor.agreement().share, unknown),
    )
    metrics.watch(
        "ai_router_head_drift", "Stability index of the head's confidence", lambda: _or(monitor.drift(), unknown)
    )
    metrics.watch("ai_router_decision_cache_entries", "Decisions kept", lambda: float(len(fast_path.cache)))
    return fast_path


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _primary_max_tokens(settings: Settings) -> MaxTokensPolicy:
    """``auto`` made definite: a configured primary is taken for a reasoning model, the embedded one is none."""
    if settings.primary_max_tokens.kind != "auto":
        return settings.primary_max_tokens
    return MaxTokensPolicy("pass" if settings.embedded else "strip")
