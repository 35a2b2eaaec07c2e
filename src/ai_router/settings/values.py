"""The settings themselves: what each is called, means, and is when nobody sets it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ai_router.settings.parse import (
    MaxTokensPolicy,
    amount,
    base_url,
    choice,
    database_url,
    integer,
    max_tokens_policy,
    parsed,
    path,
    seconds,
    secret,
    secrets,
    share,
    switch,
    text,
)


class ClassifierMode(StrEnum):
    """How the classifier model is asked."""

    CONSTRAINED = "constrained"
    REASONING = "reasoning"
    OFF = "off"


class SpeculationMode(StrEnum):
    """When the primary is called while the classifier still thinks."""

    AUTO = "auto"
    ALWAYS = "always"
    OFF = "off"


class LogFormat(StrEnum):
    """What a line of the log is."""

    PLAIN = "plain"
    JSON = "json"


class SessionBodies(StrEnum):
    """What session files keep of what was said."""

    FULL = "full"
    REDACTED = "redacted"
    OFF = "off"


def _setting(env: str, default: str | None, parser: Callable[[str], Any], doc: str, hidden: bool = False) -> Any:
    """A field of Settings: its variable, its default as one would write it there (None: unset), and its meaning."""
    return field(repr=not hidden, metadata={"env": env, "default": default, "parse": parser, "doc": doc})


def _provider_url(name: str, called: str) -> Any:
    return _setting(f"{name}_API_URL", None, base_url, f"{called}'s address; unset: the catalogue's")


def _provider_key(name: str, called: str) -> Any:
    return _setting(f"{name}_API_KEY", None, secret, f"{called}'s key; unset: none of its models", hidden=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, parsed. Every field's variable, default and meaning stand beside it and in .env.example."""

    host: str = _setting("HOST", "127.0.0.1", text, "address to listen on")
    port: int = _setting("PORT", "8080", integer(1, 65535), "port to listen on")
    data_dir: Path = _setting("DATA_DIR", "./data", path, "where the log and the sessions go")
    log_file: Path | None = _setting("LOG_FILE", None, path, "the log; unset: DATA_DIR/app.log")
    session_dir: Path | None = _setting("SESSION_DIR", None, path, "session files; unset: DATA_DIR/sessions")
    log_timestamps: bool = _setting("LOG_TIMESTAMPS", "off", switch, "put time and level before each line of the log")
    log_format: LogFormat = _setting(
        "LOG_FORMAT", "plain", choice(LogFormat), "plain lines, or json: an object a line, on stderr as well"
    )
    session_bodies: SessionBodies = _setting(
        "SESSION_BODIES", "full", choice(SessionBodies), "what was said, in session files: full, redacted, off"
    )
    telemetry: bool = _setting(
        "TELEMETRY", "on", switch, "count requests and keep rows of usage; off: only the log and the session files"
    )
    tracing: bool = _setting("TRACING", "off", switch, "send OpenTelemetry spans to OTEL_EXPORTER_OTLP_ENDPOINT")
    database_url: str | None = _setting(
        "DATABASE_URL",
        None,
        database_url,
        "usage: sqlite:///FILE, postgresql://...; unset: usage.db",
        hidden=True,
    )
    usage_days: int = _setting("USAGE_DAYS", "400", integer(1, 36_500), "how long rows of usage are kept")
    electricity_usd_per_kwh: float | None = _setting(
        "ELECTRICITY_USD_PER_KWH", None, amount, "gives local answers a cost; unset: they cost GPU-seconds only"
    )
    gpu_watts: float = _setting("GPU_WATTS", "350", amount, "what the machine draws while it answers")
    workers: int = _setting("WORKERS", "1", integer(1, 64), "processes; must be 1 for now")
    threads: int = _setting("THREADS", "72", integer(4, 4096), "request threads; one in eight is kept for /health")

    max_streams: int = _setting(
        "MAX_STREAMS", "1000", integer(1, 100_000), "streams under way at once; they hold no thread"
    )

    router_url: str | None = _setting("ROUTER_URL", None, base_url, "the classifier's server; unset: no classifier")
    router_model: str = _setting("ROUTER_MODEL", "nvidia/Nemotron-Orchestrator-8B", text, "the classifier's model id")
    primary_url: str | None = _setting(
        "PRIMARY_URL", None, base_url, "the primary's server; unset: the embedded CPU model"
    )
    primary_model: str = _setting(
        "PRIMARY_MODEL", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8", text, "the primary's model id"
    )
    xai_api_url: str = _setting("XAI_API_URL", "https://api.x.ai", base_url, "xAI's address")
    xai_api_key: str | None = _setting(
        "XAI_API_KEY", None, secret, "xAI's key; unset: none of its models, and no search of its", hidden=True
    )
    xai_model: str = _setting("XAI_MODEL", "grok-4.7", text, "the model that answers COMPLEX")
    xai_search_model: str = _setting("XAI_SEARCH_MODEL", "grok-4.3", text, "the model that searches the web")
    openai_api_url: str | None = _provider_url("OPENAI", "OpenAI")
    openai_api_key: str | None = _provider_key("OPENAI", "OpenAI")
    gemini_api_url: str | None = _provider_url("GEMINI", "Gemini")
    gemini_api_key: str | None = _provider_key("GEMINI", "Gemini")
    perplexity_api_url: str | None = _provider_url("PERPLEXITY", "Perplexity")
    perplexity_api_key: str | None = _provider_key("PERPLEXITY", "Perplexity")
    openrouter_api_url: str | None = _provider_url("OPENROUTER", "OpenRouter")
    openrouter_api_key: str | None = _provider_key("OPENROUTER", "OpenRouter")
    catalogue_file: Path | None = _setting(
        "CATALOGUE_FILE", None, path, "your own models, providers and fallback chains, in TOML"
    )

    classifier_mode: ClassifierMode = _setting(
        "CLASSIFIER_MODE", "constrained", choice(ClassifierMode), "constrained, reasoning or off"
    )
    classifier_context_chars: int = _setting(
        "CLASSIFIER_CONTEXT_CHARS",
        "6000",
        integer(200, 1_000_000),
        "how much conversation the classifier is shown",
    )
    fast_routing: bool = _setting(
        "FAST_ROUTING", "on", switch, "decide in this process what was decided before or is plain"
    )
    decision_cache_s: float = _setting(
        "DECISION_CACHE_S", "3600", seconds, "how long a decision of the classifier's is kept; ENRICH at most 60"
    )
    shadow_share: float = _setting(
        "SHADOW_SHARE", "0.02", share, "share of the fast decisions that the classifier is asked about afterwards"
    )
    speculation: SpeculationMode = _setting(
        "SPECULATION",
        "auto",
        choice(SpeculationMode),
        "call the primary during classification: auto, always, off",
    )
    primary_slots: int = _setting(
        "PRIMARY_SLOTS",
        "8",
        integer(1, 10_000),
        "requests that the primary serves at once; if taken: no speculation",
    )
    speculation_budget_s: float = _setting(
        "SPECULATION_BUDGET_S", "30", seconds, "primary's seconds a minute that lost speculations may take"
    )
    backoff_s: float = _setting("BACKOFF_S", "1", seconds, "before the first retry; the next waits are twice as long")
    breaker_failures: int = _setting(
        "BREAKER_FAILURES",
        "5",
        integer(1, 100_000),
        "failures in a row that have a backend left alone for a while",
    )
    queue_budget_s: float = _setting(
        "QUEUE_BUDGET_S", "30", seconds, "a request's wait for backends that are busy or cooling down"
    )
    queue_size: int | None = _setting(
        "QUEUE_SIZE",
        None,
        integer(0, 10_000),
        "requests that may wait for backends; unset: half of the request threads",
    )
    backend_cap: int | None = _setting(
        "BACKEND_CAP",
        None,
        integer(1, 10_000),
        "requests at one backend at once; unset: the request threads, 3/4 of them with several backends",
    )
    cloud_fallback: bool = _setting(
        "CLOUD_FALLBACK",
        "on",
        switch,
        "let the cloud answer what the primary was to answer when the primary is down",
    )
    primary_max_tokens: MaxTokensPolicy = _setting(
        "PRIMARY_MAX_TOKENS", "auto", max_tokens_policy, "max_tokens at the primary: auto, strip, pass, add:N"
    )
    date_context: bool = _setting("DATE_CONTEXT", "on", switch, "tell the models the date, to the hour")

    connect_timeout_s: float = _setting("CONNECT_TIMEOUT_S", "5", seconds, "to connect to any backend")
    primary_ttft_s: float = _setting("PRIMARY_TTFT_S", "30", seconds, "to the first event of a stream, primary")
    xai_ttft_s: float = _setting("XAI_TTFT_S", "60", seconds, "to the first event of a stream, xAI")
    classifier_timeout_s: float = _setting("CLASSIFIER_TIMEOUT_S", "30", seconds, "for a whole classification")
    search_timeout_s: float = _setting("SEARCH_TIMEOUT_S", "120", seconds, "for a whole web search")
    plain_timeout_s: float = _setting("PLAIN_TIMEOUT_S", "120", seconds, "for a plain answer of one backend")
    stream_idle_s: float = _setting("STREAM_IDLE_S", "60", seconds, "between two reads of a stream")
    request_timeout_s: float = _setting("REQUEST_TIMEOUT_S", "600", seconds, "for a whole request, streamed or not")
    body_timeout_s: float = _setting(
        "BODY_TIMEOUT_S", "30", seconds, "for a client to send its headers, and then its body"
    )
    write_timeout_s: float = _setting("WRITE_TIMEOUT_S", "30", seconds, "for a client to take one chunk of the answer")
    keepalive_s: float = _setting(
        "KEEPALIVE_S", "5", seconds, "between two SSE comments while a stream has nothing to say"
    )
    max_body_mb: int = _setting("MAX_BODY_MB", "32", integer(1, 1024), "the largest request body, MiB")

    admin_key: str | None = _setting(
        "AI_ROUTER_ADMIN_KEY",
        None,
        secret,
        "sees all sessions and usage; others see their own",
        hidden=True,
    )
    api_keys: tuple[str, ...] | None = _setting(
        "AI_ROUTER_API_KEYS", None, secrets, "keys clients must show, comma-separated; unset: none", hidden=True
    )
    allow_unauthenticated: bool = _setting(
        "ALLOW_UNAUTHENTICATED", "off", switch, "listen beyond this machine without keys"
    )

    embedded: bool = False
    """True when the primary is the model we started ourselves; set by ``serve``, not by the environment."""

    primary_key: str | None = field(default=None, repr=False)
    """The key of the embedded primary, made up at each start; a configured primary has none."""

    of_providers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further *_API_KEY and *_API_URL variables, for the providers of a catalogue of the user's."""

    def variable(self, env: str) -> str | None:
        """The value of a provider's variable. Raises SettingsError if it is no key or address."""
        for known in dataclasses.fields(self):
            if known.metadata.get("env") == env:
                value = getattr(self, known.name)
                return None if value is None else str(value)
        raw = self.of_providers.get(env)
        if raw is None:
            return None
        return str(parsed(env, raw, base_url if env.endswith("_URL") else secret))

    @property
    def backends_cap(self) -> int:
        """BACKEND_CAP, or three quarters of the request threads: a backend that hangs leaves some for others."""
        return self.backend_cap or max(1, self.request_threads * 3 // 4)

    @property
    def queue_limit(self) -> int:
        """QUEUE_SIZE, or half of the request threads."""
        return self.request_threads // 2 if self.queue_size is None else self.queue_size

    @property
    def log_path(self) -> Path:
        """LOG_FILE, or its place under DATA_DIR."""
        return self.log_file or self.data_dir / "app.log"

    @property
    def usage_database(self) -> str:
        """DATABASE_URL, or a file under DATA_DIR."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'usage.db'}"

    @property
    def usd_per_gpu_s(self) -> float | None:
        """What a second of a local backend's time costs in electricity."""
        price = self.electricity_usd_per_kwh
        return None if price is None else self.gpu_watts / 1000 * price / 3600

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be seen: keys, and the database's password."""
        ours = [self.admin_key, self.primary_key, *(self.api_keys or ())]
        theirs = [getattr(self, f.name) for f in dataclasses.fields(self) if f.name.endswith("_api_key")]
        others = [value for name, value in self.of_providers.items() if name.endswith("_KEY")]
        password = unquote(urlsplit(self.database_url or "").password or "")
        return tuple(dict.fromkeys(found for found in (*ours, *theirs, *others, password) if found))

    @property
    def session_path(self) -> Path:
        """SESSION_DIR, or its place under DATA_DIR."""
        return self.session_dir or self.data_dir / "sessions"

    @property
    def classifier_enabled(self) -> bool:
        """Whether a classifier model is there to be asked."""
        return self.router_url is not None and self.classifier_mode is not ClassifierMode.OFF

    @property
    def request_threads(self) -> int:
        """How many requests that ask backends may hold a thread; the threads above it answer everything else."""
        return self.threads - max(2, self.threads // 8)

    @property
    def max_in_flight(self) -> int:
        """How many requests that ask backends may be under way: those with a thread, as many that wait for one, and
        MAX_STREAMS streams that have begun."""
        return 2 * self.request_threads + self.max_streams

    @property
    def max_connections(self) -> int:
        """How many client connections are kept open; beyond that the one that has been silent longest is closed."""
        return self.max_in_flight + 10 * self.threads
