"""The application: everything is made and connected here, once, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import cast

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from ai_router.backend_limits import build_limiter, share_limiter
from ai_router.config import SessionBodies, Settings
from ai_router.console.now import live_parts
from ai_router.dispatch.client_form import ThoughtOrigins
from ai_router.dispatch.everywhere import InFlightEverywhere, flush_everywhere
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.health import HealthChecker
from ai_router.dispatch.in_flight import InFlight, RequestLimit
from ai_router.dispatch.models_in_memory import ModelsInMemory
from ai_router.dispatch.primary_facts import PrimaryFacts
from ai_router.dispatch.record import Subscriber
from ai_router.dispatch.speculation import PrimaryLoad
from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.endpoints import browser_rule, register_answers, register_console, register_reports
from ai_router.http.client import UpstreamClient
from ai_router.http.session import BackendSession
from ai_router.http.timers import TimerThread
from ai_router.judging.calling import ModelCaller
from ai_router.judging.comparer import build_comparer
from ai_router.judging.sampling import JudgeSampler
from ai_router.observability import log_lines
from ai_router.observability.metrics import JudgeMetrics, unlabelled, watch_limiter
from ai_router.observability.recorder import Sink
from ai_router.observability.windows import process_started
from ai_router.privacy import Privacy, build_finder
from ai_router.providers.building import build_registry
from ai_router.providers.registry import Registry
from ai_router.reloading import Reloader
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.runtime import EXTENSION, Runtime
from ai_router.shared.peers import Peers
from ai_router.shared.start import Shared, start_shared
from ai_router.storage.lazy_store import lazy_responses, lazy_threads
from ai_router.storage.response_keeper import ResponseKeeper
from ai_router.storage.session_reader import SessionFiles
from ai_router.telemetry import Telemetry, start_telemetry, watch_backends
from ai_router.web import (
    access,
    chat,
    health,
    metrics,
    rate_limits,
    responses,
    threads,
)
from ai_router.web.requests import Ids
from ai_router.wiring import (
    build_embeddings,
    build_pipeline,
    build_thread_runner,
    passing_timeouts,
    start_admission,
    start_directory,
)

_ENDING_S = 0.25
"""How long a look at what has happened waits for what is just ending."""


def create_app(settings: Settings, started_at: float | None = None) -> Flask:
    """The application. ``close_app`` ends its threads and writes what is queued.

    ``started_at``: when the process that starts it began, in seconds since 1970; None: this one.
    """
    closing, timers = ExitStack(), TimerThread()
    closing.callback(timers.close)
    shared = start_shared(settings.redis_url, closing)
    keys = access.Keys(settings.api_keys, settings.admin_key, start_directory(settings, closing))

    # What is known of the backends, and who is told of what happens.
    registry = build_registry(settings)
    process_start = process_started() if started_at is None else started_at
    session = BackendSession()
    closing.callback(session.close)
    load = _start_load(session, registry, closing)
    # The packaged model does not think.
    thinking = PrimaryThinking(reasons=False if settings.packaged_model else None)
    sinks: list[Sink] = [load.finished, thinking.finished]
    telemetry = start_telemetry(settings, registry, process_start, sinks, shared.peers, closing)

    # What the backends are asked with.
    client = UpstreamClient(timers, pool_size=2 * settings.request_threads)
    closing.callback(client.close)
    limiter = build_limiter(settings, registry)
    share_limiter(limiter, registry, shared, closing)
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
    facts, thoughts = PrimaryFacts(session, registry.primary), ThoughtOrigins(shared.values)
    in_flight = InFlight()
    flush = _flush_everywhere(in_flight, telemetry, shared.peers)
    admission = start_admission(shared, telemetry, flush, closing)
    pipeline = build_pipeline(
        settings,
        registry,
        client,
        limiter,
        limit,
        load,
        thinking,
        telemetry,
        facts,
        thoughts,
        shared,
        admission,
        _start_memory(session, registry, closing),
        closing,
    )

    reloader = Reloader(
        settings, registry, pipeline, limiter, checker, telemetry, Privacy(build_finder(settings, registry.catalogue))
    )

    # How clients ask.
    app = _flask_app()
    runtime = app.extensions[EXTENSION] = Runtime(
        timers, access.RequestPolicy(keys, limit), closing, reloader.reload, in_flight
    )
    ids = Ids()

    everywhere = InFlightEverywhere(in_flight, shared.peers)

    responses.init_app(app, telemetry.scrubber.json, telemetry.refused)
    access.init_app(app, keys, ids, limit, browser_rule(app, settings))
    keeper = _response_keeper(settings, in_flight, telemetry.scrubber.json, shared, closing)
    subscribers = (
        log_lines.finished,
        telemetry.subscriber,
        *_start_judging(settings, registry, pipeline.forwarder, limiter, telemetry, reloader.privacy, closing),
    )
    chat_settings = chat.ChatSettings(
        ids,
        settings.max_body_mb << 20,
        settings.max_body_values,
        settings.date_context,
        telemetry.trace_of,
        telemetry.scrubber.text,
        bodies=settings.session_bodies,
        traces_all=settings.tracing,
        admit=rate_limits.admits_with(admission, ids),
        privacy=reloader.privacy,
    )
    register_answers(
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
        health.blueprint(checker, telemetry.log, telemetry.sessions, telemetry.usage, limit, shared, runtime.draining)
    )
    app.register_blueprint(
        metrics.blueprint(telemetry.metrics, telemetry.windows, telemetry.cold_start, telemetry.usage, flush)
    )
    open_threads = lazy_threads(settings.usage_database)
    closing.callback(open_threads.close)
    runner = build_thread_runner(
        settings, pipeline, in_flight, limit, subscribers, telemetry, open_threads, timers, shared.peers, closing
    )
    app.register_blueprint(threads.blueprint(open_threads, runner, chat_settings))
    files = SessionFiles(settings.session_path)
    register_reports(app, settings, chat_settings, telemetry, flush, files, registry)
    parts = live_parts(in_flight, registry, limiter, checker, telemetry.windows, telemetry.usage, flush, shared.peers)
    register_console(app, parts, pipeline, telemetry, flush, files)
    return app


def _start_load(session: BackendSession, registry: Registry, closing: ExitStack) -> PrimaryLoad:
    load = PrimaryLoad(session, registry.primary)
    load.start()
    closing.callback(load.close)
    return load


def _start_memory(session: BackendSession, registry: Registry, closing: ExitStack) -> ModelsInMemory:
    memory = ModelsInMemory(session, registry)
    memory.start()
    closing.callback(memory.close)
    return memory


def _start_judging(
    settings: Settings,
    registry: Registry,
    forwarder: Forwarder,
    limiter: ConcurrencyLimiter,
    telemetry: Telemetry,
    privacy: Privacy,
    closing: ExitStack,
) -> Sequence[Subscriber]:
    """Have a share of the answers judged. Returns who is to be told of each request that has ended; none with
    JUDGE_SHARE=0."""
    if settings.judge_share == 0:
        return ()
    put_rows = (lambda _: None) if telemetry.usage is None else telemetry.usage.put
    caller = ModelCaller(forwarder, limiter, telemetry.call_usd)
    comparer = build_comparer(settings, registry, caller, telemetry.is_local, put_rows, closing)
    metrics = JudgeMetrics(telemetry.metrics.registry)

    def is_private(text: str) -> bool:
        return privacy.finder is not None and bool(privacy.finder.found_in(text))

    sampler = JudgeSampler(comparer, metrics, settings.judge_share, is_private)
    sampler.start()
    closing.callback(sampler.close)
    return (sampler.finished,)


def _flask_app() -> Flask:
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = access.with_canonical_paths(app.wsgi_app)  # type: ignore[method-assign, assignment]
    # People read what is sent: the order in which things are said is the order in which they are meant.
    cast(DefaultJSONProvider, app.json).sort_keys = False
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
    settings: Settings,
    in_flight: InFlight,
    scrub: Callable[[bytes], bytes],
    shared: Shared,
    closing: ExitStack,
) -> ResponseKeeper:
    """What keeps answers of the Responses API: where words may be kept in the database, else in memory."""
    keeps_words = settings.session_bodies is SessionBodies.FULL
    store = lazy_responses(settings.usage_database) if keeps_words else None
    if store is not None:
        closing.callback(store.close)
    keeper = ResponseKeeper(store, partial(in_flight.wait_for_closing, _ENDING_S), scrub, shared)
    closing.callback(keeper.close)
    return keeper
