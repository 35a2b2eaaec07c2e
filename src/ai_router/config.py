"""The settings: one value that cannot change. A setting is one declaration in ``Settings``.

They are read by config_loading.py, from texts by the functions of config_values.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from ai_router import config_values as values
from ai_router.config_values import (
    Amount,
    ClassifierMode,
    DatabaseUrl,
    LogFormat,
    MaxTokens,
    MaxTokensPolicy,
    Names,
    Origins,
    Pause,
    PrivateKinds,
    RedisUrl,
    Seconds,
    Secret,
    Secrets,
    SessionBodies,
    SettingsError,
    Share,
    SpeculationMode,
    Switch,
    Text,
    UnknownModel,
    Url,
    UserPath,
    Workers,
    between,
    one_of_kind,
)

__all__ = ["ClassifierMode", "LogFormat", "MaxTokensPolicy", "SessionBodies", "SettingsError", "SpeculationMode"]


def _variable(default: str | None, doc: str, *, hidden: bool = False, name: str | None = None) -> Any:
    """A setting: its default as a user would write it in .env (None: unset), and what it means.

    ``repr`` leaves out a hidden one. ``name`` is the variable's name if that is not the field's in capitals.
    """
    return Field(default, description=doc, repr=not hidden, alias=name)


class Settings(BaseModel):
    """All settings, parsed. A field's variable is its name in capitals.

    ``model_copy(update={...})`` makes a changed copy, which is not checked again.
    """

    model_config = ConfigDict(
        frozen=True,
        alias_generator=str.upper,
        validate_default=True,  # a default is a text, too
        hide_input_in_errors=True,
    )

    host: Text = _variable("127.0.0.1", "address to listen on")
    port: Annotated[int, between(1, 65535)] = _variable("8080", "port to listen on")
    data_dir: UserPath = _variable("./data", "where the log and the sessions go")
    log_file: UserPath | None = _variable(None, "the log; unset: DATA_DIR/app.log")
    log_max_mb: Annotated[int, between(1, 1_000_000)] = _variable("100", "the size at which the log is begun anew, MiB")
    log_keep: Annotated[int, between(0, 1_000)] = _variable("3", "how many earlier logs are kept: app.log.1, .2, ...")
    session_dir: UserPath | None = _variable(None, "session files; unset: DATA_DIR/sessions")
    log_timestamps: Switch = _variable("off", "put time and level before each line of the log")
    log_format: Annotated[LogFormat, one_of_kind(LogFormat)] = _variable(
        "plain", "plain lines, or json: an object a line, on stderr as well"
    )
    session_bodies: Annotated[SessionBodies, one_of_kind(SessionBodies)] = _variable(
        "full", "what was said, in session files: full, redacted, off"
    )
    telemetry: Switch = _variable(
        "on", "count requests and keep rows of usage; off: only the log and the session files"
    )
    tracing: Switch = _variable("off", "send OpenTelemetry spans to OTEL_EXPORTER_OTLP_ENDPOINT")
    database_url: DatabaseUrl | None = _variable(
        None, "usage: sqlite:///FILE, postgresql://...; unset: usage.db", hidden=True
    )
    usage_days: Annotated[int, between(1, 36_500)] = _variable("400", "how long rows of usage are kept")
    electricity_usd_per_kwh: Amount | None = _variable(
        None, "gives local answers a cost; unset: they cost GPU-seconds only"
    )
    gpu_watts: Amount = _variable("350", "what the machine draws while it answers")
    workers: Workers = _variable("1", "processes that serve: a number, or auto, one for each processor")
    redis_url: RedisUrl | None = _variable(
        None,
        "where processes share state: redis://host:6379/0; unset: with several WORKERS one of their own",
        hidden=True,
    )
    threads: Annotated[int, between(4, 4096)] = _variable(
        "72", "threads that answer requests; one in eight is kept for /health"
    )
    max_streams: Annotated[int, between(1, 100_000)] = _variable(
        "1000", "streams that may be under way besides the requests that hold a thread"
    )

    router_url: Url | None = _variable(None, "the classifier's server; unset: no classifier")
    router_model: Text = _variable("nvidia/Nemotron-Orchestrator-8B", "the classifier's model id")
    primary_url: Url | None = _variable(None, "the primary's server; unset: the embedded CPU model")
    embedded_model: UserPath | None = _variable(None, "a GGUF file to serve here; unset: the packaged SmolLM2")
    meta_url: Url | None = _variable(None, "a server for a chat UI's own jobs (titles, tags); unset: the primary")
    meta_model: Text | None = _variable(None, "the model there; unset: PRIMARY_MODEL")
    meta_priority: Annotated[int, between(0, 1_000_000)] = _variable(
        "0", "vLLM's priority for these jobs: larger is later; needs its --scheduling-policy priority; 0: none"
    )
    primary_model: Text = _variable("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8", "the primary's model id")
    xai_api_url: Url = _variable("https://api.x.ai", "xAI's address")
    xai_api_key: Secret | None = _variable(
        None, "xAI's key; unset: none of its models, and no search of its", hidden=True
    )
    xai_model: Text = _variable("grok-4.7", "the model that answers COMPLEX")
    xai_search_model: Text = _variable("grok-4.3", "the model that searches the web")
    openai_api_url: Url | None = _variable(None, "OpenAI's address; unset: the catalogue's")
    openai_api_key: Secret | None = _variable(None, "OpenAI's key; unset: none of its models", hidden=True)
    embeddings_url: Url | None = _variable(
        None, "a server for /v1/embeddings; unset: the primary's, if it has any, else this process"
    )
    anthropic_api_url: Url | None = _variable(None, "Anthropic's address; unset: the catalogue's")
    anthropic_api_key: Secret | None = _variable(None, "Anthropic's key; unset: none of its models", hidden=True)
    gemini_api_url: Url | None = _variable(None, "Gemini's address; unset: the catalogue's")
    gemini_api_key: Secret | None = _variable(None, "Gemini's key; unset: none of its models", hidden=True)
    perplexity_api_url: Url | None = _variable(None, "Perplexity's address; unset: the catalogue's")
    perplexity_api_key: Secret | None = _variable(None, "Perplexity's key; unset: none of its models", hidden=True)
    openrouter_api_url: Url | None = _variable(None, "OpenRouter's address; unset: the catalogue's")
    openrouter_api_key: Secret | None = _variable(None, "OpenRouter's key; unset: none of its models", hidden=True)
    searxng_url: Url | None = _variable(None, "a SearXNG of your own that may search the web for ENRICH; unset: none")
    enrich_provider: Text | None = _variable(
        None, "who searches first: xai, perplexity, openrouter, searxng; unset: in the catalogue's order"
    )
    search_hedge_share: Share = _variable(
        "0", "share of the searches that may be made twice, by the next who can, if the first takes unusually long"
    )
    catalogue_file: UserPath | None = _variable(None, "your own models, providers and fallback chains, in TOML")

    unknown_model: Annotated[UnknownModel, one_of_kind(UnknownModel)] = _variable(
        "404", "a model that nobody knows: 404, or auto, as if it had not been named"
    )

    quality: Annotated[int, between(0, 10)] = _variable(
        "5", "from 0, nothing is decided to the cloud, to 10, all that could gain by it"
    )
    raise_on_complaint: Switch = _variable(
        "off", "a user who is not content with the primary's answer has the next turn answered by the cloud"
    )
    classifier_mode: Annotated[ClassifierMode, one_of_kind(ClassifierMode)] = _variable(
        "constrained", "constrained, reasoning, decision (POST /v1/systemone) or off"
    )
    classifier_context_chars: Annotated[int, between(200, 1_000_000)] = _variable(
        "6000", "how much conversation the classifier is shown"
    )
    fast_routing: Switch = _variable("on", "decide in this process what was decided before or is plain")
    decision_cache_s: Seconds = _variable("3600", "how long a decision of the classifier's is kept; ENRICH at most 60")
    shadow_share: Share = _variable("0.02", "share of the fast decisions that the classifier is asked about afterwards")
    judge_share: Share = _variable("0", "share of the local answers that are compared with the cloud's by JUDGE_MODEL")
    judge_model: Text | None = _variable(None, "who judges, as provider/model; best neither of the two that are judged")
    judge_budget_usd: Amount = _variable("0", "what judging may cost in a calendar month (UTC), in all processes")
    speculation: Annotated[SpeculationMode, one_of_kind(SpeculationMode)] = _variable(
        "auto", "call the primary during classification: auto, always, off"
    )
    speculation_signal: Switch = _variable(
        "off", "an answer of the primary that begins with 'I don't have access to' and the like changes the decision"
    )
    primary_slots: Annotated[int, between(1, 10_000)] = _variable(
        "8", "requests that the primary serves at once; if taken: no speculation"
    )
    speculation_budget_s: Seconds = _variable("30", "primary's seconds a minute that lost speculations may take")
    backoff_s: Seconds = _variable("1", "before the first retry; the next waits are twice as long")
    breaker_failures: Annotated[int, between(1, 100_000)] = _variable(
        "5", "failures in a row that have a backend left alone for a while"
    )
    queue_budget_s: Seconds = _variable("30", "a request's wait for backends that are busy or cooling down")
    queue_size: Annotated[int, between(0, 10_000)] | None = _variable(
        None, "requests that may wait for backends; unset: half of the threads for them"
    )
    backend_cap: Annotated[int, between(1, 10_000)] | None = _variable(
        None, "requests at one backend at once; unset: the threads for them, 3/4 with several backends"
    )
    cloud_fallback: Switch = _variable(
        "on", "let the cloud answer what the primary was to answer when the primary is down"
    )
    primary_max_tokens: MaxTokens = _variable("auto", "max_tokens at the primary: auto, strip, pass, add:N")
    primary_thinking_tokens: Annotated[int, between(1, 1_000_000)] = _variable(
        "8192", "what PRIMARY_MAX_TOKENS=auto adds for a primary that thinks"
    )
    date_context: Switch = _variable("on", "tell the models the date, to the hour")

    connect_timeout_s: Seconds = _variable("5", "to connect to any backend")
    primary_ttft_s: Seconds = _variable("30", "to the first event of a stream, primary")
    xai_ttft_s: Seconds = _variable("60", "to the first event of a stream, xAI")
    classifier_timeout_s: Seconds = _variable("30", "for a whole classification")
    search_timeout_s: Seconds = _variable("120", "for a whole web search")
    plain_timeout_s: Seconds = _variable("120", "for a plain answer of one backend")
    stream_idle_s: Seconds = _variable("60", "between two reads of a stream")
    request_timeout_s: Seconds = _variable("600", "for a whole request, streamed or not")
    body_timeout_s: Seconds = _variable("30", "for a client to send its headers, and then its body")
    write_timeout_s: Seconds = _variable("30", "for a client to take one chunk of the answer")
    drain_s: Pause = _variable("5", "how long a router that is told to stop goes on, while /health/ready says 503")
    thread_resume_s: Seconds = _variable("30", "how long a thread's answer goes on without a reader")
    keepalive_s: Seconds = _variable("5", "between two SSE comments while a stream has nothing to say")
    max_body_mb: Annotated[int, between(1, 1024)] = _variable("32", "the largest request body, MiB")
    max_body_values: Annotated[int, between(1000, 10**8)] = _variable(
        "500000", "the most JSON values in a request body"
    )
    max_bodies_mb: Annotated[int, between(1, 10**6)] = _variable("128", "large bodies under way at once, MiB in all")

    admin_key: Secret | None = _variable(
        None, "sees all sessions and usage; others see their own", hidden=True, name="AI_ROUTER_ADMIN_KEY"
    )
    api_keys: Secrets | None = _variable(
        None, "keys clients must show, comma-separated; unset: none", hidden=True, name="AI_ROUTER_API_KEYS"
    )
    virtual_keys: Switch = _variable("off", "require a key, and know those of 'ai-router keys', too")
    allow_unauthenticated: Switch = _variable("off", "listen beyond this machine without keys")
    private_patterns: PrivateKinds | None = _variable(
        None, "what keeps a request with it in the local network: card, iban, secret, email; unset: none of these"
    )
    cors_origins: Origins | None = _variable(
        None, "pages that may ask from a browser, by their origins, or *; unset: none but the console"
    )
    allowed_hosts: Names | None = _variable(
        None, "without keys: names under which browsers may ask, besides localhost, HOST and addresses"
    )

    embedded: bool = False
    """True when the primary is the model we started ourselves; set by ``serve``, not by the environment."""

    own_redis: bool = False
    """True when REDIS_URL is that of a Valkey that ``serve`` has started itself."""

    primary_key: str | None = Field(None, repr=False)
    """The key of the embedded primary, made up at each start; a configured primary has none."""

    of_providers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Further *_API_KEY and *_API_URL variables, for the providers of a catalogue of the user's."""

    def variable(self, name: str) -> str | None:
        """The value of a provider's variable. Raises SettingsError if it is no key or address."""
        if name in FIELDS:
            value = getattr(self, FIELDS[name])
            return None if value is None else str(value)
        text = self.of_providers.get(name)
        if text is None:
            return None
        try:
            return values.base_url(text) if name.endswith("_URL") else values.secret(text)
        except ValueError as problem:
            raise SettingsError(f"{name} {problem}") from None

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
    def packaged_model(self) -> bool:
        """Whether the primary is the small model that is packaged."""
        return self.embedded and self.embedded_model is None

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
        """Everything that must not be seen: keys, and the passwords of the database and of Redis."""
        ours = [self.admin_key, self.primary_key, *(self.api_keys or ())]
        theirs = [getattr(self, field) for field in FIELDS.values() if field.endswith("_api_key")]
        others = [value for name, value in self.of_providers.items() if name.endswith("_KEY")]
        passwords = [unquote(urlsplit(url or "").password or "") for url in (self.database_url, self.redis_url)]
        return tuple(dict.fromkeys(found for found in (*ours, *theirs, *others, *passwords) if found))

    @property
    def session_path(self) -> Path:
        """SESSION_DIR, or its place under DATA_DIR."""
        return self.session_dir or self.data_dir / "sessions"

    @property
    def keys_required(self) -> bool:
        """Whether clients must show a key."""
        return self.virtual_keys or bool(self.api_keys)

    @property
    def shares_state(self) -> bool:
        """Whether something must be counted outside a single process: workers together, or what a key has used."""
        return self.workers > 1 or self.virtual_keys

    @property
    def classifier_enabled(self) -> bool:
        """Whether a classifier model is there to be asked."""
        return self.router_url is not None and self.classifier_mode is not ClassifierMode.OFF

    @property
    def request_threads(self) -> int:
        """How many requests for backends may hold a thread; the threads above it answer everything else."""
        return self.threads - max(2, self.threads // 8)

    @property
    def max_in_flight(self) -> int:
        """How many requests for backends may be under way, with a thread or as a stream that has begun.

        Those that wait for a thread are not counted here: as many may wait as may hold one.
        """
        return self.request_threads + self.max_streams

    @property
    def max_connections(self) -> int:
        """How many client connections are kept open; beyond that the one that is silent longest is closed."""
        return self.max_in_flight + self.request_threads + 10 * self.threads


FIELDS = {str(field.validation_alias): name for name, field in Settings.model_fields.items() if field.description}
"""The field of each variable. A field without a description is no variable: the program sets it."""
