"""The application: everything is made and connected here, once, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from ai_router.apis import ClientApi
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.config import SessionBodies, Settings
from ai_router.console.assets import Assets
from ai_router.console.doubt import Deciders, Doubts
from ai_router.console.live import LivePart, LiveView
from ai_router.console.now import live_parts
from ai_router.dispatch.embeddings import Embeddings
from ai_router.dispatch.everywhere import InFlightEverywhere, flush_everywhere
from ai_router.dispatch.health import HealthChecker
from ai_router.dispatch.in_flight import InFlight, RequestLimit
from ai_router.dispatch.own_form import ThoughtOrigins
from ai_router.dispatch.primary_facts import PrimaryFacts
from ai_router.dispatch.record import Subscriber
from ai_router.dispatch.speculation import PrimaryLoad
from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.errors import ShuttingDown
from ai_router.http.calls import Timeouts
from ai_router.http.client import UpstreamClient
from ai_router.http.session import BackendSession
from ai_router.http.timers import TimerThread
from ai_router.observability import log_lines
from ai_router.observability.metrics import unlabelled, watch_limiter
from ai_router.observability.recorder import Sink
from ai_router.observability.windows import process_started
from ai_router.pipeline import Pipeline
from ai_router.providers.registry import CLASSIFIER, build_registry
from ai_router.shared.peers import Peers
from ai_router.shared.start import start_shared
from ai_router.storage.lazy_store import lazy_feedback, lazy_responses, lazy_threads
from ai_router.storage.response_keeper import ResponseKeeper
from ai_router.storage.session_reader import SessionFiles
from ai_router.telemetry import Telemetry, start_telemetry, watch_backends
from ai_router.web import (
    access,
    chat,
    console,
    cors,
    count_tokens,
    dry_run,
    embeddings,
    feedback,
    health,
    live,
    metrics,
    models,
    ollama,
    passing,
    reports,
    responses,
    stored_responses,
    threads,
)
from ai_router.web.requests import Ids
from ai_router.wiring import build_embeddings, build_limiter, build_pipeline, build_thread_runner, passing_timeouts

EXTENSION = "ai_router"
_ENDING_S = 0.25
"""How long a look at what has happened waits for what is just ending."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What outlives a request: for the server, and to be ended with the application."""

    timers: TimerThread
    policy: access.RequestPolicy
    closing: ExitStack
    in_flight: InFlight = field(default_factory=InFlight)
    live: list[LiveView] = field(default_factory=list)
    draining: threading.Event = field(default_factory=threading.Event)


def create_app(settings: Settings, started_at: float | None = None) -> Flask:
    """The application. ``close_app`` ends its threads and writes what is queued.

    ``started_at``: when the process that starts it began, in seconds since 1970; None: this one.
    """
    keys, closing, timers = access.Keys(settings.api_keys, settings.admin_key), ExitStack(), TimerThread()
    closing.callback(timers.close)
    shared = start_shared(settings.redis_url, closing)

    # What is known of the backends, and who is told of what happens.
    registry = build_registry(settings)
    process_start = process_started() if started_at is None else started_at
    session = BackendSession()
    closing.callback(session.close)
    load = PrimaryLoad(session, registry.primary)
    load.start()
    closing.callback(load.close)
    # The packaged model does not think.
    thinking = PrimaryThinking(reasons=False if settings.packaged_model else None)
    sinks: list[Sink] = [load.finished, thinking.finished]
    telemetry = start_telemetry(settings, registry, process_start, sinks, closing)

    # What the backends are asked with.
    client = UpstreamClient(timers, pool_size=2 * settings.request_threads)
    closing.callback(client.close)
    limiter = build_limiter(settings, registry, shared)
    watch_limiter(telemetry.metrics, lambda: {name: limiter.report(name) for name in limiter.names()})
    checker = HealthChecker(session, registry.backends(), limiter)
    closing.callback(checker.close)
    watch_backends(telemetry.metrics, checker)

    # How a request is answered.
    # With several keys none of them may take all places.
    of_one = settings.max_in_flight * 3 // 4 if len(settings.api_keys or ()) > 1 else None
    limit = RequestLimit(settings.max_in_flight, telemetry.resilience.shed, of_one=of_one)
    telemetry.metrics.watch(
        "ai_router_in_flight", "Chat requests under way", unlabelled(lambda: float(limit.in_flight))
    )
    facts, thoughts = PrimaryFacts(session, registry.primary), ThoughtOrigins()
    pipeline = build_pipeline(
        settings, registry, client, limiter, limit, load, thinking, telemetry, facts, thoughts, shared, closing
    )

    # How clients ask.
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = access.with_canonical_paths(app.wsgi_app)  # type: ignore[method-assign, assignment]
    runtime = app.extensions[EXTENSION] = Runtime(timers, access.RequestPolicy(keys, limit), closing)
    in_flight = runtime.in_flight
    # People read these: the order in which things are said is the order in which they are meant.
    cast(DefaultJSONProvider, app.json).sort_keys = False
    ids = Ids()

    flush = _flush_everywhere(in_flight, telemetry, shared.peers)
    everywhere = InFlightEverywhere(in_flight, shared.peers)

    responses.init_app(app, telemetry.scrubber.json, telemetry.refused)
    access.init_app(app, keys, ids, limit, _browser_rule(app, settings))
    keeper = _response_keeper(settings, in_flight, telemetry.scrubber.json, closing)
    subscribers = (log_lines.finished, telemetry.subscriber)
    chat_settings = chat.ChatSettings(
        ids,
        settings.max_body_mb << 20,
        settings.max_body_values,
        settings.date_context,
        telemetry.trace_of,
        telemetry.scrubber.text,
        bodies=settings.session_bodies,
        traces_all=settings.tracing,
    )
    _register_answers(
        app,
        pipeline,
        client,
        subscribers,
        telemetry,
        chat_settings,
        keeper,
        thoughts,
        everywhere,
        build_embeddings(settings, registry, client),
        passing_timeouts(settings),
    )
    app.register_blueprint(
        health.blueprint(checker, telemetry.log, telemetry.sessions, telemetry.usage, limit, runtime.draining)
    )
    app.register_blueprint(
        metrics.blueprint(telemetry.metrics, telemetry.windows, telemetry.cold_start, telemetry.usage, flush)
    )
    open_threads = lazy_threads(settings.usage_database)
    closing.callback(open_threads.close)
    runner = build_thread_runner(
        settings, pipeline, in_flight, limit, subscribers, telemetry, open_threads, timers, closing
    )
    app.register_blueprint(threads.blueprint(open_threads, runner, chat_settings))
    files = SessionFiles(settings.session_path)
    _register_reports(app, settings, chat_settings, telemetry, flush, files)
    parts = live_parts(in_flight, registry, limiter, checker, telemetry.windows, telemetry.usage, flush)
    _register_console(app, parts, pipeline, telemetry, flush, files)
    return app


def _flush_everywhere(in_flight: InFlight, telemetry: Telemetry, peers: Peers) -> Callable[[], None]:
    """Have all requests recorded that have ended, in all processes."""

    def flush() -> None:
        in_flight.wait_for_closing(_ENDING_S)
        telemetry.flush()

    def flush_for_others() -> None:
        flush()
        telemetry.sessions.flush()
        if telemetry.usage is not None:
            telemetry.usage.flush()

    return flush_everywhere(flush, flush_for_others, peers)


def _response_keeper(
    settings: Settings, in_flight: InFlight, scrub: Callable[[bytes], bytes], closing: ExitStack
) -> ResponseKeeper:
    """What keeps answers of the Responses API: where words may be kept in the database, else in memory."""
    keeps_words = settings.session_bodies is SessionBodies.FULL
    store = lazy_responses(settings.usage_database) if keeps_words else None
    if store is not None:
        closing.callback(store.close)
    keeper = ResponseKeeper(store, partial(in_flight.wait_for_closing, _ENDING_S), scrub)
    closing.callback(keeper.close)
    return keeper


def _with_earlier_turns(
    keeper: ResponseKeeper, api: ClientApi, payload: dict[str, Any], client: str
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The body of a request with the turns before it, which the Responses API refers to by an id."""
    return keeper.continued(payload, client) if api is RESPONSES else (payload, {})


def _register_answers(
    app: Flask,
    pipeline: Pipeline,
    client: UpstreamClient,
    subscribers: Sequence[Subscriber],
    telemetry: Telemetry,
    chat_settings: chat.ChatSettings,
    keeper: ResponseKeeper,
    thoughts: ThoughtOrigins,
    everywhere: InFlightEverywhere,
    made_embeddings: Embeddings,
    timeouts: Timeouts,
) -> None:
    """What answers, in every API, and what clients ask before and after it."""
    in_flight, prepare = runtime_of(app).in_flight, partial(_with_earlier_turns, keeper)
    app.register_blueprint(
        chat.blueprint(
            pipeline,
            in_flight,
            subscribers,
            telemetry.resilience,
            chat_settings,
            prepare,
            everywhere,
            own_subscribers=(thoughts.note, keeper.note),
        )
    )
    app.register_blueprint(
        passing.blueprint(client, pipeline.registry, in_flight, subscribers, chat_settings, timeouts)
    )
    app.register_blueprint(stored_responses.blueprint(keeper))
    app.register_blueprint(dry_run.blueprint(pipeline, chat_settings))
    app.register_blueprint(count_tokens.blueprint(client, pipeline.registry, chat_settings))
    app.register_blueprint(embeddings.blueprint(made_embeddings, chat_settings))
    app.register_blueprint(models.blueprint(pipeline.registry, pipeline.primary_facts))
    app.register_blueprint(ollama.blueprint(pipeline.registry, pipeline.primary_facts, chat_settings))


def _browser_rule(app: Flask, settings: Settings) -> access.BrowserRule | None:
    """What browsers must keep to; None with keys, which a page of somebody else's does not have."""
    origins = settings.cors_origins or ()
    if origins:
        cors.init_app(app, origins)
    names = [settings.host, *(settings.allowed_hosts or ())]
    return None if settings.api_keys else access.BrowserRule(names, origins)


def _register_reports(
    app: Flask,
    settings: Settings,
    chat_settings: chat.ChatSettings,
    telemetry: Telemetry,
    flush: Callable[[], None],
    files: SessionFiles,
) -> None:
    """What was kept of requests, and what people say of it. ``flush`` has recorded what has ended."""
    lookups = reports.Lookups()
    app.register_blueprint(reports.usage_blueprint(telemetry.usage, telemetry.baseline, flush, lookups))
    app.register_blueprint(reports.sessions_blueprint(files, telemetry.sessions, flush, lookups))
    verdicts = lazy_feedback(settings.usage_database)
    runtime_of(app).closing.callback(verdicts.close)
    app.register_blueprint(
        feedback.blueprint(verdicts, files, telemetry.sessions, flush, lookups, chat_settings, settings.usage_days)
    )


def _register_console(
    app: Flask,
    parts: Sequence[LivePart],
    pipeline: Pipeline,
    telemetry: Telemetry,
    flush: Callable[[], None],
    files: SessionFiles,
) -> None:
    """The page at ``/``, and what it asks for that nobody else does."""
    closing = runtime_of(app).closing
    view = LiveView(parts)
    closing.callback(view.close)
    runtime_of(app).live.append(view)
    classifier = pipeline.registry.classifier

    def is_local(backend: str) -> bool:
        # Where there is none any more, that of earlier sessions is taken to have been one's own.
        is_former = backend == CLASSIFIER and classifier is None
        return is_former or telemetry.is_local(backend)

    doubts = Doubts(files, Deciders(lambda: pipeline.router.head, classifier is not None, is_local))
    closing.callback(doubts.close)
    app.register_blueprint(live.blueprint(view, doubts, telemetry.sessions, flush, reports.Lookups()))
    app.register_blueprint(console.blueprint(Assets()))


def runtime_of(app: Flask) -> Runtime:
    """What the server needs of an application of ``create_app``."""
    runtime: Runtime = app.extensions[EXTENSION]
    return runtime


def close_app(app: Flask) -> None:
    """End the application's threads, last made first; queued sessions and log lines are written. Idempotent."""
    runtime_of(app).closing.close()


def drain_app(app: Flask) -> None:
    """The server takes no more connections; /health/ready says so."""
    runtime_of(app).draining.set()


def end_live_views(app: Flask) -> None:
    """End the streams that only show what happens. Nothing is lost with them, and they would never end by
    themselves."""
    for view in runtime_of(app).live:
        view.close()


def stop_app(app: Flask) -> None:
    """Abort all requests, with an error that their clients can read. Their responses close a moment later."""
    drain_app(app)
    runtime_of(app).in_flight.abort_all(ShuttingDown("the router is being stopped"))
