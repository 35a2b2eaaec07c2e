"""Wiring of what decides: gates, classifier, fast path."""

from __future__ import annotations

from contextlib import ExitStack

from ai_router.http.client import UpstreamClient
from ai_router.observability.metrics import RoutingMetrics
from ai_router.observability.registry import Metrics, one
from ai_router.providers.registry import CLASSIFIER, Registry
from ai_router.resilience.breaker import BreakerRules
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.routing.cache import DecisionCache
from ai_router.routing.classifier import Classifier, ClassifierSettings
from ai_router.routing.conversations import Conversations
from ai_router.routing.head.store import HeadStore
from ai_router.routing.monitor import Monitor, ShadowClassifier
from ai_router.routing.router import FastPath
from ai_router.settings import Settings

_CACHED_DECISIONS = 10_000
_REMEMBERED_TURNS = 50_000
_DISAGREEMENT_LIMIT = 0.1
"""Three times what the head's threshold allows at calibration: traffic differs from examples, and from day to day."""
_UNKNOWN = float("nan")


def build_limiter(settings: Settings, registry: Registry) -> ConcurrencyLimiter:
    """One gate a backend. With several that answer chats, none of them may take all places."""
    cap = settings.backends_cap if registry.clouds else settings.backend_cap or settings.admitted
    own = {name: backend.cap for name, backend in registry.clouds.items() if backend.cap is not None}
    rules = BreakerRules(
        in_a_row=settings.breaker_failures,
        least_calls=4 * settings.breaker_failures,
        open_s=settings.backoff_s,
        most_open_s=30 * settings.backoff_s,
    )
    return ConcurrencyLimiter(cap, settings.queue_limit, rules, {CLASSIFIER: settings.admitted, **own})


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
            max_concurrent=settings.admitted,
        ),
    )


def build_fast_path(
    settings: Settings,
    heads: HeadStore,
    monitor: Monitor,
    metrics: RoutingMetrics,
    shadow: ShadowClassifier | None = None,
) -> FastPath:
    """The in-process deciders as the settings want them."""
    return FastPath(
        heads=heads,
        cache=DecisionCache(_CACHED_DECISIONS, settings.decision_cache_s),
        conversations=Conversations(_REMEMBERED_TURNS),
        monitor=monitor,
        metrics=metrics,
        context_chars=settings.classifier_context_chars,
        shadow=shadow,
    )


def start_fast_path(
    settings: Settings,
    classifier: Classifier | None,
    decisions: RoutingMetrics,
    metrics: Metrics,
    closing: ExitStack,
) -> FastPath:
    """The in-process deciders with their threads, watched."""
    monitor = Monitor(_DISAGREEMENT_LIMIT)
    heads = HeadStore(settings.data_dir, lambda head: monitor.reset(head.reference))
    monitor.reset(heads.current.reference)
    heads.start()
    closing.callback(heads.close)
    shadow = None
    if classifier is not None and settings.shadow_share > 0:
        shadow = ShadowClassifier(classifier, monitor, decisions, settings.shadow_share)
        shadow.start()
        closing.callback(shadow.close)
    fast_path = build_fast_path(settings, heads, monitor, decisions, shadow)
    metrics.watch(
        "ai_router_head_in_service", "1 while the head decides", one(lambda: float(monitor.in_service)), mode="livemin"
    )
    metrics.watch(
        "ai_router_head_agreement",
        "Recent agreement with the classifier",
        one(lambda: _or(monitor.agreement().share, _UNKNOWN)),
        mode="livemostrecent",
    )
    metrics.watch(
        "ai_router_head_drift",
        "Stability index of the head's confidence",
        one(lambda: _or(monitor.drift(), _UNKNOWN)),
        mode="livemostrecent",
    )
    metrics.watch("ai_router_decision_cache_entries", "Decisions kept", one(lambda: float(len(fast_path.cache))))
    return fast_path


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
