"""Wiring: every object is made here, once, and handed to those that need it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from flask import Flask, g, request

from ai_router.api import auth, health, models, replies
from ai_router.api.admission import Admission
from ai_router.api.chat import ChatEndpoint
from ai_router.api.parsing import Ids
from ai_router.execution.cancellation import ClientWatcher
from ai_router.execution.enrichment import WebSearch
from ai_router.execution.forward import Forwarder
from ai_router.execution.health import HealthChecker
from ai_router.execution.pipeline import Pipeline
from ai_router.providers.registry import Registry, build_registry
from ai_router.routing.classifier import Classifier, ClassifierSettings, StartupProbe
from ai_router.routing.router import Router
from ai_router.session_logger import SessionLogger
from ai_router.settings import MaxTokensPolicy, Settings, SpeculationMode
from ai_router.telemetry import timing_log
from ai_router.telemetry.logs import LogWriter
from ai_router.upstream.alarms import Alarms
from ai_router.upstream.client import UpstreamClient

EXTENSION = "ai_router"


def create_app(settings: Settings) -> Flask:
    """The application. ``close_app`` ends its threads and writes what is queued."""
    closing = ExitStack()
    registry = build_registry(settings)
    closing.callback(LogWriter(settings.log_path, timestamps=settings.log_timestamps).close)
    alarms = Alarms()
    closing.callback(alarms.close)
    client = UpstreamClient(alarms, pool_size=2 * settings.admitted)
    closing.callback(client.close)
    watcher = ClientWatcher()
    closing.callback(watcher.close)
    # Each request has at most two calls off its own thread: a speculative one on its way out, and a search.
    executor = ThreadPoolExecutor(max_workers=2 * settings.admitted, thread_name_prefix="leg")
    closing.callback(executor.shutdown, wait=False, cancel_futures=True)
    sessions = SessionLogger(settings.session_path)
    sessions.start()
    closing.callback(sessions.close)
    classifier = build_classifier(settings, registry, client)
    if classifier is not None:
        probe = StartupProbe(classifier)
        probe.start()
        closing.callback(probe.close)
    checker = HealthChecker(client, registry.backends())
    closing.callback(checker.close)
    admission = Admission(settings.admitted)
    pipeline = Pipeline(
        registry=registry,
        router=Router(registry, classifier, use_rules=settings.fast_routing),
        forwarder=Forwarder(
            client,
            registry,
            primary_max_tokens=_primary_max_tokens(settings),
            request_timeout_s=settings.request_timeout_s,
        ),
        search=WebSearch(client, registry, settings.search_timeout_s),
        executor=executor,
        speculate=settings.speculation is not SpeculationMode.OFF,
        cloud_fallback=settings.cloud_fallback,
        keepalive_s=settings.keepalive_s,
    )
    ids = Ids()
    chat = ChatEndpoint(
        pipeline=pipeline,
        admission=admission,
        watcher=watcher,
        alarms=alarms,
        subscribers=(timing_log.finished, sessions.record),
        ids=ids,
        max_body=settings.max_body_mb << 20,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        tell_date=settings.date_context,
    )
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = closing

    @app.before_request
    def identify() -> None:
        g.request_id = ids.request_id(request.headers.get("x-request-id"))

    auth.init_app(app, settings.api_keys)
    replies.init_app(app)
    app.register_blueprint(chat.blueprint())
    app.register_blueprint(models.blueprint(registry))
    app.register_blueprint(health.blueprint(checker, sessions, admission))
    return app


def close_app(app: Flask) -> None:
    """End the application's threads, last made first; queued sessions and log lines are written. Idempotent."""
    closing: ExitStack = app.extensions[EXTENSION]
    closing.close()


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
        ),
    )


def _primary_max_tokens(settings: Settings) -> MaxTokensPolicy:
    """``auto`` made definite: a configured primary is taken for a reasoning model, the embedded one is none."""
    if settings.primary_max_tokens.kind != "auto":
        return settings.primary_max_tokens
    return MaxTokensPolicy("pass" if settings.embedded else "strip")
