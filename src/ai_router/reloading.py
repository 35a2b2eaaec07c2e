"""Taking over changed settings while the router runs: those of RELOADED, and what stands in the catalogue's file.

All is read and checked before anything is changed. What cannot be changed in a running process is named.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from ai_router.backend_limits import limits_of
from ai_router.config import FIELDS, Settings, SettingsError
from ai_router.config_loading import load_settings
from ai_router.dispatch.health import HealthChecker
from ai_router.pipeline import Pipeline
from ai_router.privacy import Privacy, build_finder
from ai_router.providers.building import build_registry
from ai_router.providers.registry import Registry
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.telemetry import Telemetry
from ai_router.wiring import quality_of

log = logging.getLogger(__name__)

RELOADED = (
    *("CATALOGUE_FILE", "UNKNOWN_MODEL", "XAI_MODEL", "XAI_SEARCH_MODEL", "SEARXNG_URL", "ENRICH_PROVIDER"),
    *("BACKEND_CAP", "QUEUE_SIZE", "PRIMARY_SLOTS", "SPECULATION_BUDGET_S", "PRIVATE_PATTERNS", "QUALITY"),
)
"""The settings that a running router takes over."""


@dataclass(frozen=True, slots=True)
class Changes:
    """``settings``: the present ones with those of RELOADED as they are now. ``waiting``: names of others that have
    changed, which need a new start."""

    settings: Settings
    waiting: tuple[str, ...]


def read_changes(present: Settings) -> Changes:
    """The settings as they stand now in the environment and in .env. Raises SettingsError."""
    read = load_settings()
    taken = {FIELDS[name]: getattr(read, FIELDS[name]) for name in RELOADED}
    ours = {"primary_url", "primary_model", "redis_url"} if present.embedded or present.own_redis else set()
    waiting = tuple(
        name
        for name, field_name in FIELDS.items()
        if name not in RELOADED and field_name not in ours and getattr(read, field_name) != getattr(present, field_name)
    )
    return Changes(present.model_copy(update=taken), waiting)


def check_reload(present: Settings) -> Changes:
    """The same, with the catalogue checked as well. Raises SettingsError."""
    changes = read_changes(present)
    if changes.settings.primary_url is not None:
        build_finder(changes.settings, build_registry(changes.settings).catalogue)
    return changes


@dataclass(slots=True)
class Reloader:
    """Changes a running application. ``settings``: the present ones. Safe from any thread."""

    settings: Settings
    registry: Registry
    pipeline: Pipeline
    limiter: ConcurrencyLimiter
    checker: HealthChecker
    telemetry: Telemetry
    privacy: Privacy
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reload(self) -> None:
        """Take over what has changed, or nothing of it, and log which."""
        with self._lock:
            try:
                changes = read_changes(self.settings)
                registry = build_registry(changes.settings, present=self.registry)
                finder = build_finder(changes.settings, registry.catalogue)
            except SettingsError as problem:
                log.error("Not reloaded, all stays as it was: %s", problem)  # noqa: TRY400 - no traceback: it says all
                return
            self.privacy.finder = finder
            self._apply(changes.settings, registry)
            self.settings = changes.settings
            log.info("Reloaded: %d providers, %d models", len(registry.clouds), _models(registry))
            if changes.waiting:
                log.warning("Changed, but only a new start takes it over: %s", ", ".join(changes.waiting))

    def _apply(self, settings: Settings, registry: Registry) -> None:
        self.registry.adopt(registry)
        self.pipeline.search.searchers = registry.searchers
        self.pipeline.memory.refresh()
        self.checker.backends = registry.backends()
        self.telemetry.know_backends()
        limits = limits_of(settings, registry)
        self.pipeline.router.quality = quality_of(settings)
        self.pipeline.router.know(registry.catalogue.routes)
        self.limiter.change(limits.cap, settings.queue_limit, limits.caps, counts_streams=limits.counts_streams)
        self.pipeline.speculation_controller.slots = settings.primary_slots
        self.pipeline.speculation_controller.budget.change(settings.speculation_budget_s)


def _models(registry: Registry) -> int:
    return sum(len(provider.models) for provider in registry.catalogue.providers.values())
