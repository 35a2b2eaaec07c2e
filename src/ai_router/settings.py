"""The settings: one frozen value, read once at start from the environment and an optional .env file.

This module is the only reader of the environment. An empty variable counts as unset, because that is what
docker compose passes on for a variable nobody filled in.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values


class SettingsError(ValueError):
    """A setting that cannot work. The message is one line and starts with the setting's name."""


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


@dataclass(frozen=True, slots=True)
class MaxTokensPolicy:
    """What happens to a client's max_tokens on its way to the primary: ``strip``, ``pass`` or ``add`` extra tokens.

    ``auto`` is strip for a configured primary, taken to be a reasoning model that would spend a small budget on
    thinking and answer nothing, and pass for the embedded one.
    """

    kind: str
    extra: int = 0


def _text(value: str) -> str:
    return value


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"must be a whole number, not {value!r}") from None
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}, not {number}")
        return number

    return parse


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number of seconds, not {value!r}") from None
    if not 0 < number <= 86_400:
        raise ValueError(f"must be more than 0 and at most 86400 seconds, not {value}")
    return number


def _share(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number from 0 to 1, not {value!r}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"must be from 0 to 1, not {value}")
    return number


def _switch(value: str) -> bool:
    lowered = value.lower()
    if lowered in ("on", "true", "yes", "1"):
        return True
    if lowered in ("off", "false", "no", "0"):
        return False
    raise ValueError(f"must be on or off, not {value!r}")


E = TypeVar("E", bound=StrEnum)


def _choice(kind: type[E]) -> Callable[[str], E]:
    def parse(value: str) -> E:
        try:
            return kind(value.lower())
        except ValueError:
            raise ValueError(f"must be one of {', '.join(kind)}, not {value!r}") from None

    return parse


def _base_url(value: str) -> str:
    """``http(s)://host[:port][/path]`` without /v1 and without a trailing slash."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as problem:
        raise ValueError(f"is not a URL: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must look like http://host:port")
    if parts.username or parts.password:
        raise ValueError("must not carry credentials; keys have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("must not carry a query or a fragment")
    return value.rstrip("/").removesuffix("/v1").rstrip("/")


def _secret(value: str) -> str:
    """A key as it will stand in a header. The message never repeats the value."""
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be printable ASCII without spaces (the value is not shown here)")
    return value


def _secrets(value: str) -> tuple[str, ...]:
    keys = tuple(_secret(part.strip()) for part in value.split(",") if part.strip())
    if not keys:
        raise ValueError("must hold at least one key, separated by commas (the value is not shown here)")
    return keys


def _path(value: str) -> Path:
    return Path(value).expanduser()


def _max_tokens_policy(value: str) -> MaxTokensPolicy:
    kind, _, extra = value.lower().partition(":")
    if kind in ("auto", "strip", "pass") and not extra:
        return MaxTokensPolicy(kind)
    if kind == "add" and extra.isdigit() and 0 < int(extra) <= 1_000_000:
        return MaxTokensPolicy("add", int(extra))
    raise ValueError(f"must be auto, strip, pass or add:N with N from 1 to 1000000, not {value!r}")


def _setting(env: str, default: str | None, parse: Callable[[str], Any], doc: str, secret: bool = False) -> Any:
    """A field of Settings: its variable, its default as one would write it there (None: unset), and its meaning."""
    return field(repr=not secret, metadata={"env": env, "default": default, "parse": parse, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, parsed. Every field's variable, default and meaning stand beside it and in .env.example."""

    host: str = _setting("HOST", "127.0.0.1", _text, "address to listen on")
    port: int = _setting("PORT", "8080", _integer(1, 65535), "port to listen on")
    data_dir: Path = _setting("DATA_DIR", "./data", _path, "where the log and the sessions go")
    log_file: Path | None = _setting("LOG_FILE", None, _path, "the log; unset: DATA_DIR/app.log")
    session_dir: Path | None = _setting("SESSION_DIR", None, _path, "session files; unset: DATA_DIR/sessions")
    log_timestamps: bool = _setting("LOG_TIMESTAMPS", "off", _switch, "put time and level before each line of the log")
    workers: int = _setting("WORKERS", "1", _integer(1, 64), "processes; must be 1 for now")
    threads: int = _setting("THREADS", "72", _integer(4, 1024), "request threads; one in eight is kept for /health")

    router_url: str | None = _setting("ROUTER_URL", None, _base_url, "the classifier's server; unset: no classifier")
    router_model: str = _setting("ROUTER_MODEL", "nvidia/Nemotron-Orchestrator-8B", _text, "the classifier's model id")
    primary_url: str | None = _setting(
        "PRIMARY_URL", None, _base_url, "the primary's server; unset: the embedded CPU model"
    )
    primary_model: str = _setting(
        "PRIMARY_MODEL", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8", _text, "the primary's model id"
    )
    xai_api_url: str = _setting("XAI_API_URL", "https://api.x.ai", _base_url, "xAI's address")
    xai_api_key: str | None = _setting(
        "XAI_API_KEY", None, _secret, "xAI's key; unset: no COMPLEX or ENRICH route", secret=True
    )
    xai_model: str = _setting("XAI_MODEL", "grok-4.7", _text, "the model that answers COMPLEX")
    xai_search_model: str = _setting("XAI_SEARCH_MODEL", "grok-4.3", _text, "the model that searches the web")

    classifier_mode: ClassifierMode = _setting(
        "CLASSIFIER_MODE", "constrained", _choice(ClassifierMode), "constrained, reasoning or off"
    )
    classifier_context_chars: int = _setting(
        "CLASSIFIER_CONTEXT_CHARS", "6000", _integer(200, 1_000_000), "how much conversation the classifier is shown"
    )
    fast_routing: bool = _setting(
        "FAST_ROUTING", "on", _switch, "decide in this process what was decided before or is plain"
    )
    decision_cache_s: float = _setting(
        "DECISION_CACHE_S", "3600", _seconds, "how long a decision of the classifier's is kept; ENRICH at most 60"
    )
    shadow_share: float = _setting(
        "SHADOW_SHARE", "0.02", _share, "share of the fast decisions that the classifier is asked about afterwards"
    )
    speculation: SpeculationMode = _setting(
        "SPECULATION", "auto", _choice(SpeculationMode), "call the primary during classification: auto, always, off"
    )
    primary_slots: int = _setting(
        "PRIMARY_SLOTS", "8", _integer(1, 10_000), "requests that the primary serves at once; if taken: no speculation"
    )
    speculation_budget_s: float = _setting(
        "SPECULATION_BUDGET_S", "30", _seconds, "primary's seconds a minute that lost speculations may take"
    )
    cloud_fallback: bool = _setting(
        "CLOUD_FALLBACK", "on", _switch, "let xAI answer what the primary was to answer when the primary is down"
    )
    primary_max_tokens: MaxTokensPolicy = _setting(
        "PRIMARY_MAX_TOKENS", "auto", _max_tokens_policy, "max_tokens at the primary: auto, strip, pass, add:N"
    )
    date_context: bool = _setting("DATE_CONTEXT", "on", _switch, "tell the models the date, to the hour")

    connect_timeout_s: float = _setting("CONNECT_TIMEOUT_S", "5", _seconds, "to connect to any backend")
    primary_ttft_s: float = _setting("PRIMARY_TTFT_S", "30", _seconds, "to the first event of a stream, primary")
    xai_ttft_s: float = _setting("XAI_TTFT_S", "60", _seconds, "to the first event of a stream, xAI")
    classifier_timeout_s: float = _setting("CLASSIFIER_TIMEOUT_S", "30", _seconds, "for a whole classification")
    search_timeout_s: float = _setting("SEARCH_TIMEOUT_S", "120", _seconds, "for a whole web search")
    plain_timeout_s: float = _setting("PLAIN_TIMEOUT_S", "120", _seconds, "for a plain answer of one backend")
    stream_idle_s: float = _setting("STREAM_IDLE_S", "60", _seconds, "between two reads of a stream")
    request_timeout_s: float = _setting("REQUEST_TIMEOUT_S", "600", _seconds, "for a whole request, streamed or not")
    body_timeout_s: float = _setting(
        "BODY_TIMEOUT_S", "30", _seconds, "for a client to send its headers, and then its body"
    )
    write_timeout_s: float = _setting("WRITE_TIMEOUT_S", "30", _seconds, "for a client to take one chunk of the answer")
    keepalive_s: float = _setting("KEEPALIVE_S", "5", _seconds, "between two SSE comments while ENRICH searches")
    max_body_mb: int = _setting("MAX_BODY_MB", "32", _integer(1, 1024), "the largest request body, MiB")

    api_keys: tuple[str, ...] | None = _setting(
        "AI_ROUTER_API_KEYS", None, _secrets, "keys clients must show, comma-separated; unset: none", secret=True
    )
    allow_unauthenticated: bool = _setting(
        "ALLOW_UNAUTHENTICATED", "off", _switch, "listen beyond this machine without keys"
    )

    embedded: bool = False
    """True when the primary is the model we started ourselves; set by ``serve``, not by the environment."""

    primary_key: str | None = field(default=None, repr=False)
    """The key of the embedded primary, made up at each start; a configured primary has none."""

    @property
    def log_path(self) -> Path:
        """LOG_FILE, or its place under DATA_DIR."""
        return self.log_file or self.data_dir / "app.log"

    @property
    def session_path(self) -> Path:
        """SESSION_DIR, or its place under DATA_DIR."""
        return self.session_dir or self.data_dir / "sessions"

    @property
    def classifier_enabled(self) -> bool:
        """Whether a classifier model is there to be asked."""
        return self.router_url is not None and self.classifier_mode is not ClassifierMode.OFF

    @property
    def admitted(self) -> int:
        """How many chat requests may be in flight; the threads above it keep /health answering."""
        return self.threads - max(2, self.threads // 8)


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting as documentation needs it."""

    env: str
    default: str | None
    doc: str


def documented_settings() -> tuple[SettingInfo, ...]:
    """Every setting with its variable, default and meaning, in the order of the class."""
    return tuple(
        SettingInfo(f.metadata["env"], f.metadata["default"], f.metadata["doc"])
        for f in dataclasses.fields(Settings)
        if "env" in f.metadata
    )


def load_settings(environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")) -> Settings:
    """Read the settings; the environment wins over the .env file.

    Raises SettingsError, in one line, for the first value that cannot work.
    """
    values = _merged(os.environ if environ is None else environ, dotenv)
    parsed = {f.name: _parse(f.metadata, values) for f in dataclasses.fields(Settings) if "env" in f.metadata}
    settings = Settings(**parsed)
    _check_together(settings)
    return settings


def unknown_names(dotenv: Path = Path(".env")) -> tuple[str, ...]:
    """Names in the .env file that are no settings: perhaps misspelt ones."""
    known = {setting.env for setting in documented_settings()}
    return tuple(name for name in (dotenv_values(dotenv) if dotenv.is_file() else {}) if name not in known)


def _merged(environ: Mapping[str, str], dotenv: Path | None) -> Mapping[str, str]:
    from_file = dotenv_values(dotenv) if dotenv and dotenv.is_file() else {}
    merged = {**from_file, **environ}
    return {name: value.strip() for name, value in merged.items() if value and value.strip()}


def _parse(metadata: Mapping[str, Any], values: Mapping[str, str]) -> Any:
    raw = values.get(metadata["env"], metadata["default"])
    if raw is None:
        return None
    try:
        return metadata["parse"](raw)
    except ValueError as problem:
        raise SettingsError(f"{metadata['env']} {problem}") from None


def _check_together(settings: Settings) -> None:
    if settings.workers > 1:
        raise SettingsError(
            f"WORKERS={settings.workers} needs REDIS_URL to share state between processes, and this version has no "
            "such sharing yet; raise THREADS instead"
        )
    if not is_loopback(settings.host) and not settings.api_keys and not settings.allow_unauthenticated:
        raise SettingsError(
            f"HOST {settings.host} is reachable from outside this machine: set AI_ROUTER_API_KEYS to one or more keys, "
            "or ALLOW_UNAUTHENTICATED=1 if you mean it"
        )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
