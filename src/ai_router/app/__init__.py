"""Wiring: every object is made here, once, and handed to those that need it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import cast

from flask import Flask, g, request
from flask.json.provider import DefaultJSONProvider

from ai_router.app.deciding import build_classifier, build_limiter, start_fast_path
from ai_router.app.observing import Telemetry, start_telemetry, watch_backends
from ai_router.dispatch.disconnects import ClientWatcher
from ai_router.dispatch.dispatcher import RetryPolicy
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.health import HealthChecker
from ai_router.dispatch.in_flight import InFlight
from ai_router.dispatch.primary_load import PrimaryLoad
from ai_router.dispatch.speculating import SpeculationController
from ai_router.dispatch.speculation_policy import Budget
from ai_router.dispatch.web_search import WebSearch
from ai_router.errors import ShuttingDown
from ai_router.http.client import UpstreamClient
from ai_router.http.session import BackendSession
from ai_router.http.timers import TimerThread
from ai_router.observability import log_lines
from ai_router.observability.cold_start import process_started
from ai_router.observability.metrics import watch_limiter
from ai_router.observability.registry import one
from ai_router.pipeline import Pipeline
from ai_router.providers.registry import Registry, build_registry
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.resilience.retry import Backoff, RetryBudget
from ai_router.routing.classifier import StartupProbe
from ai_router.routing.router import Router
from ai_router.settings import MaxTokensPolicy, Settings
from ai_router.storage.session_reader import SessionFiles
from ai_router.web import auth, cancel, health, metrics, models, responses, sessions, usage
from ai_router.web.chat import ChatEndpoint
from ai_router.web.limits import Admission
from ai_router.web.lookups import Lookups
from ai_router.web.requests import Ids

EXTENSION = "ai_router"
_PARTING_S = 2.0
_ENDING_S = 0.25
"""How long a look at what has happened waits for what is just ending."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What outlives a request and has to be ended with the application."""

    closing: ExitStack = field(default_factory=ExitStack)
    in_flight: InFlight = field(default_factory=InFlight)
    draining: threading.Event = field(default_factory=threading.Event)


def create_app(settings: Settings, born: float | None = None) -> Flask:
    """The application. ``close_app`` ends its threads and writes what is queued.

    ``born``: when the process that starts it began, in seconds since 1970; None: this one.
    """
    runtime = Runtime()
    closing = runtime.closing
    registry = build_registry(settings)
    telemetry = start_telemetry(settings, registry, process_started() if born is None else born, closing)
    timers = TimerThread()
    closing.callback(timers.close)
    client = UpstreamClient(timers, pool_size=2 * settings.admitted)
    closing.callback(client.close)
    session = BackendSession()
    closing.callback(session.close)
    limiter = build_limiter(settings, registry)
    watch_limiter(telemetry.metrics, lambda: {name: limiter.report(name) for name in limiter.names()})
    checker = HealthChecker(session, registry.backends(), limiter)
    closing.callback(checker.close)
    watch_backends(telemetry.metrics, checker)
    admission = Admission(settings.admitted, telemetry.resilience.shed)
    telemetry.metrics.watch("ai_router_in_flight", "Chat requests under way", one(lambda: float(admission.inside)))
    load = PrimaryLoad(session, registry.primary)
    load.start()
    closing.callback(load.close)
    watcher = ClientWatcher()
    closing.callback(watcher.close)
    ids = Ids()
    keys = auth.Keys(settings.api_keys, settings.admin_key)
    chat = ChatEndpoint(
        pipeline=_pipeline(settings, registry, client, limiter, admission, load, telemetry, closing),
        keys=keys,
        admission=admission,
        watcher=watcher,
        timers=timers,
        subscribers=(log_lines.finished, load.finished, telemetry.subscriber),
        ids=ids,
        in_flight=runtime.in_flight,
        max_body=settings.max_body_mb << 20,
        body_timeout_s=settings.body_timeout_s,
        keepalive_s=settings.keepalive_s,
        tell_date=settings.date_context,
        trace_of=telemetry.trace_of,
        scrub=telemetry.scrubber.json,
        refused=telemetry.refused,
    )
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = runtime
    # People read these: the order in which things are said is the order in which they are meant.
    cast(DefaultJSONProvider, app.json).sort_keys = False

    @app.before_request
    def identify() -> None:
        g.request_id = ids.request_id(request.headers.get("x-request-id"))

    def flush() -> None:
        runtime.in_flight.let_end(_ENDING_S)
        telemetry.flush()

    auth.init_app(app, keys)
    responses.init_app(app, telemetry.scrubber.json, telemetry.refused)
    app.register_blueprint(chat.blueprint())
    app.register_blueprint(models.blueprint(registry))
    app.register_blueprint(cancel.blueprint(runtime.in_flight, telemetry.resilience))
    app.register_blueprint(health.blueprint(checker, telemetry.sessions, admission, runtime.draining))
    app.register_blueprint(
        metrics.blueprint(telemetry.metrics, telemetry.windows, telemetry.cold_start, telemetry.usage, flush)
    )
    lookups = Lookups()
    app.register_blueprint(usage.blueprint(telemetry.usage, telemetry.baseline, flush, lookups))
    app.register_blueprint(sessions.blueprint(SessionFiles(settings.session_path), telemetry.sessions, flush, lookups))
    # Flask's own way of putting something in front of it.
    app.wsgi_app = chat.before(app.wsgi_app)  # type: ignore[assignment, method-assign]
    return app


def _pipeline(
    settings: Settings,
    registry: Registry,
    client: UpstreamClient,
    limiter: ConcurrencyLimiter,
    admission: Admission,
    load: PrimaryLoad,
    telemetry: Telemetry,
    closing: ExitStack,
) -> Pipeline:
    """A request's way, with the threads that it takes."""
    # Apart, so that a search never waits behind speculations; twice over, since a lost one takes a moment to end.
    speculations = ThreadPoolExecutor(2 * settings.admitted, thread_name_prefix="speculation")
    closing.callback(speculations.shutdown, wait=False, cancel_futures=True)
    searches = ThreadPoolExecutor(settings.admitted, thread_name_prefix="search")
    closing.callback(searches.shutdown, wait=False, cancel_futures=True)
    classifier = build_classifier(settings, registry, client)
    if classifier is not None:
        closing.callback(classifier.close)
        probe = StartupProbe(classifier)
        probe.start()
        closing.callback(probe.close)
    fast_path = None
    if settings.fast_routing:
        fast_path = start_fast_path(settings, classifier, telemetry.routing, telemetry.metrics, closing)
    return Pipeline(
        registry=registry,
        router=Router(registry, classifier, fast_path, limiter),
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
        speculation_controller=SpeculationController(
            settings.speculation,
            load,
            limiter,
            Budget(settings.speculation_budget_s),
            telemetry.routing,
            slots=settings.primary_slots,
        ),
        retry_policy=RetryPolicy(
            limiter=limiter,
            budget=RetryBudget(lambda: admission.inside),
            backoff=Backoff(settings.backoff_s),
            metrics=telemetry.resilience,
            queue_s=settings.queue_budget_s,
            total_s=settings.request_timeout_s,
        ),
        cloud_fallback=settings.cloud_fallback,
        keepalive_s=settings.keepalive_s,
    )


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


def _primary_max_tokens(settings: Settings) -> MaxTokensPolicy:
    """``auto`` made definite: a configured primary is taken for a reasoning model, the embedded one is none."""
    if settings.primary_max_tokens.kind != "auto":
        return settings.primary_max_tokens
    return MaxTokensPolicy("pass" if settings.embedded else "strip")
