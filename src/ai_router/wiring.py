"""Making what answers a request: the pipeline, the limiter, the classifier, the fast path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, cast

from ai_router.config import ClassifierMode, MaxTokensPolicy, Settings
from ai_router.dispatch.client_form import ThoughtOrigins
from ai_router.dispatch.dispatcher import RetryPolicy
from ai_router.dispatch.embeddings import Embeddings
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.in_flight import InFlight, RequestLimit
from ai_router.dispatch.models_in_memory import ModelsInMemory
from ai_router.dispatch.primary_facts import PrimaryFacts
from ai_router.dispatch.record import Subscriber
from ai_router.dispatch.speculation import Budget, PrimaryLoad, SpeculationController
from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.dispatch.web_search import WebSearch
from ai_router.errors import StoreUnavailable
from ai_router.http.calls import Timeouts
from ai_router.http.client import UpstreamClient
from ai_router.http.timers import TimerThread
from ai_router.keys.admission import Admission
from ai_router.keys.directory import KeyDirectory
from ai_router.observability.metrics import Metrics, RoutingMetrics, unlabelled
from ai_router.pipeline import Pipeline
from ai_router.providers.registry import Backend, Registry
from ai_router.resilience.breaker import Backoff
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.resilience.retry import RetryBudget
from ai_router.routing.cache import DecisionCache
from ai_router.routing.calibration_store import CalibrationStore
from ai_router.routing.classifier import Classifier, ClassifierSettings, StartupProbe
from ai_router.routing.conversations import Conversations
from ai_router.routing.dial import NEUTRAL
from ai_router.routing.fast_path import FastPath
from ai_router.routing.head.own_store import OwnRoutesStore
from ai_router.routing.head.sentences import SentenceVectors
from ai_router.routing.head.store import HeadStore, packaged_slow_models
from ai_router.routing.monitor import Monitor, ShadowClassifier
from ai_router.routing.router import Router
from ai_router.routing.shared_decisions import SharedDecisions
from ai_router.shared.peers import Peers
from ai_router.shared.start import ALONE, Shared
from ai_router.shared.values import Values
from ai_router.storage.lazy_store import LazyStore, lazy_keys
from ai_router.telemetry import Telemetry
from ai_router.threads.runner import RunnerSettings, ThreadRunner

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore

_CACHED_DECISIONS = 10_000
_REMEMBERED_TURNS = 50_000
_DISAGREEMENT_LIMIT = 0.1
"""Three times what the head's threshold allows at calibration: traffic differs from examples, and from day to day."""
_UNKNOWN = float("nan")
_SPENT_S = 5.0
"""How long a request waits for the database to say what a key has spent."""


def start_directory(settings: Settings, closing: ExitStack) -> KeyDirectory | None:
    """The virtual keys, being read; None: there are none."""
    if not settings.virtual_keys:
        return None
    directory = KeyDirectory(lazy_keys(settings.usage_database))
    directory.start()
    closing.callback(directory.close)
    return directory


def start_admission(shared: Shared, telemetry: Telemetry, flush: Callable[[], None], closing: ExitStack) -> Admission:
    """What lets requests of keys in. ``flush`` has all requests recorded that have ended, in all processes."""

    def spent_of(key_id: str, when: datetime) -> Mapping[str, float]:
        usage = telemetry.usage
        if usage is None:
            raise StoreUnavailable("TELEMETRY=off")
        flush()
        usage.flush()
        store, day = usage.wait_for_store(_SPENT_S), f"{when:%Y-%m-%d}"
        return {"day": store.spent(key_id, day, day), "month": store.spent(key_id, f"{when:%Y-%m}-01", day)}

    admission = Admission(shared, spent_of, telemetry.cost_of)
    admission.start()
    closing.callback(admission.close)
    return admission


def build_embeddings(settings: Settings, registry: Registry, client: UpstreamClient) -> Embeddings:
    """Who makes embeddings."""
    server = None
    if settings.embeddings_url is not None:
        server = Backend(
            "embeddings", settings.embeddings_url, "", health_path="", ttft_s=settings.plain_timeout_s, local=True
        )
    return Embeddings(
        client,
        server,
        None if settings.embedded else registry.primary,
        lambda: cast(SentenceVectors, packaged_slow_models().vectors),
        passing_timeouts(settings),
    )


def passing_timeouts(settings: Settings) -> Timeouts:
    """The deadlines for what is passed on without a decision: those of a plain answer."""
    return Timeouts(connect=settings.connect_timeout_s, total=settings.plain_timeout_s, idle=settings.plain_timeout_s)


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
            max_concurrent=settings.request_threads,
        ),
    )


def start_calibration(settings: Settings, classifier: Classifier, closing: ExitStack) -> None:
    """Have a decision model's probabilities taken as was learned, also if that is learned later."""
    store = CalibrationStore(settings.data_dir, settings.router_model, classifier.use_calibration)
    store.start()
    closing.callback(store.close)


def quality_of(settings: Settings) -> int | None:
    """What QUALITY asks for; None: what the deciders say by themselves."""
    return None if settings.quality == NEUTRAL else settings.quality


def build_fast_path(
    settings: Settings,
    heads: HeadStore,
    own: OwnRoutesStore,
    monitor: Monitor,
    metrics: RoutingMetrics,
    shadow: ShadowClassifier | None = None,
    values: Values = ALONE.values,
) -> FastPath:
    """The in-process deciders as the settings want them."""
    return FastPath(
        heads=heads,
        own_routes=own,
        cache=DecisionCache(_CACHED_DECISIONS, settings.decision_cache_s),
        conversations=Conversations(_REMEMBERED_TURNS),
        monitor=monitor,
        metrics=metrics,
        context_chars=settings.classifier_context_chars,
        shared=SharedDecisions(values, settings.decision_cache_s),
        shadow=shadow,
    )


def start_fast_path(
    settings: Settings,
    classifier: Classifier | None,
    decisions: RoutingMetrics,
    metrics: Metrics,
    values: Values,
    closing: ExitStack,
) -> FastPath:
    """The in-process deciders with their threads, watched."""
    monitor = Monitor(_DISAGREEMENT_LIMIT)
    heads = HeadStore(settings.data_dir, lambda head: monitor.reset(head.reference), with_difficulty=False)
    monitor.reset(heads.current.reference)
    own = OwnRoutesStore(settings.data_dir)
    for store in (heads, own):
        store.start()
        closing.callback(store.close)
    shadow = None
    if classifier is not None and settings.shadow_share > 0:
        shadow = ShadowClassifier(classifier, monitor, decisions, settings.shadow_share)
        shadow.start()
        closing.callback(shadow.close)
    fast_path = build_fast_path(settings, heads, own, monitor, decisions, shadow, values)
    metrics.watch(
        "ai_router_head_in_service",
        "1 while the head decides",
        unlabelled(lambda: float(monitor.in_service)),
        mode="livemin",
    )
    metrics.watch(
        "ai_router_head_agreement",
        "Recent agreement with the classifier",
        unlabelled(lambda: _or(monitor.agreement().share, _UNKNOWN)),
        mode="livemostrecent",
    )
    metrics.watch(
        "ai_router_head_drift",
        "Stability index of the head's confidence",
        unlabelled(lambda: _or(monitor.drift(), _UNKNOWN)),
        mode="livemostrecent",
    )
    metrics.watch("ai_router_decision_cache_entries", "Decisions kept", unlabelled(lambda: float(len(fast_path.cache))))
    return fast_path


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def build_pipeline(
    settings: Settings,
    registry: Registry,
    client: UpstreamClient,
    limiter: ConcurrencyLimiter,
    limit: RequestLimit,
    load: PrimaryLoad,
    thinking: PrimaryThinking,
    telemetry: Telemetry,
    facts: PrimaryFacts,
    thoughts: ThoughtOrigins,
    shared: Shared,
    admission: Admission,
    memory: ModelsInMemory,
    closing: ExitStack,
) -> Pipeline:
    """A request's way, with the threads that it takes."""
    # Apart, so that a search never waits behind speculations; twice over, since a lost one takes a moment to end.
    speculations = ThreadPoolExecutor(2 * settings.request_threads, thread_name_prefix="speculation")
    closing.callback(speculations.shutdown, wait=False, cancel_futures=True)
    searches = ThreadPoolExecutor(settings.request_threads, thread_name_prefix="search")
    closing.callback(searches.shutdown, wait=False, cancel_futures=True)
    classifier = build_classifier(settings, registry, client)
    if classifier is not None:
        closing.callback(classifier.close)
        if settings.classifier_mode is ClassifierMode.DECISION:
            start_calibration(settings, classifier, closing)
        probe = StartupProbe(classifier)
        probe.start()
        closing.callback(probe.close)
    fast_path = None
    if settings.fast_routing:
        fast_path = start_fast_path(settings, classifier, telemetry.routing, telemetry.metrics, shared.values, closing)
    return Pipeline(
        registry=registry,
        router=Router(
            registry,
            classifier,
            fast_path,
            limiter,
            cloud_fallback=settings.cloud_fallback,
            bodies=settings.session_bodies,
            quality=quality_of(settings),
            raises_on_complaint=settings.raise_on_complaint,
            classifier_left_alone=memory.classifier_left_alone,
        ),
        forwarder=Forwarder(
            client,
            registry,
            primary_max_tokens=_primary_max_tokens(settings),
            thinking=thinking,
            request_timeout_s=settings.request_timeout_s,
            thoughts=thoughts,
        ),
        primary_facts=facts,
        search=WebSearch(
            client,
            registry.searchers,
            searches,
            timeout_s=settings.search_timeout_s,
            connect_s=settings.connect_timeout_s,
            hedge_share=settings.search_hedge_share,
            values=shared.values,
        ),
        speculations=speculations,
        speculation_controller=SpeculationController(
            settings.speculation,
            load,
            limiter,
            Budget(settings.speculation_budget_s, processes=lambda: shared.peers.count),
            telemetry.routing,
            slots=settings.primary_slots,
            processes=lambda: shared.peers.count,
        ),
        retry_policy=RetryPolicy(
            limiter=limiter,
            budget=RetryBudget(lambda: limit.in_flight),
            backoff=Backoff(settings.backoff_s),
            metrics=telemetry.resilience,
            queue_s=settings.queue_budget_s,
            total_s=settings.request_timeout_s,
        ),
        cloud_fallback=settings.cloud_fallback,
        keepalive_s=settings.keepalive_s,
        admission=admission,
        memory=memory,
        speculates_beside_head=not settings.embedded,
        heeds_first_words=settings.speculation_signal,
    )


def build_thread_runner(
    settings: Settings,
    pipeline: Pipeline,
    in_flight: InFlight,
    limit: RequestLimit,
    subscribers: Sequence[Subscriber],
    telemetry: Telemetry,
    open_threads: LazyStore[ThreadStore],
    timers: TimerThread,
    peers: Peers,
    closing: ExitStack,
) -> ThreadRunner:
    """What answers the messages of threads. It starts no thread before the first of them."""
    runner = ThreadRunner(
        pipeline,
        in_flight,
        limit,
        subscribers,
        telemetry.cost_of,
        open_threads,
        timers,
        RunnerSettings(
            threads=settings.request_threads,
            resume_s=settings.thread_resume_s,
            scrub=telemetry.scrubber.text,
            bodies=settings.session_bodies,
        ),
        peers,
    )
    closing.callback(runner.close)
    return runner


def _primary_max_tokens(settings: Settings) -> MaxTokensPolicy:
    policy = settings.primary_max_tokens
    return MaxTokensPolicy("auto", settings.primary_thinking_tokens) if policy.kind == "auto" else policy
