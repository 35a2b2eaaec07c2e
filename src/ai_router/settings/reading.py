"""Reading the settings from the environment and an optional .env file; nothing else here reads the environment.

An empty variable counts as unset, because that is what docker compose passes on for a variable nobody filled in.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from ai_router.settings.parse import SettingsError, parsed
from ai_router.settings.values import Settings

_OF_A_PROVIDER = re.compile(r"[A-Z][A-Z0-9_]*_API_(?:KEY|URL)")
"""What a catalogue of the user's may ask for, besides the settings here."""


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
    found = {f.name: _read(f.metadata, values) for f in dataclasses.fields(Settings) if "env" in f.metadata}
    documented = {f.metadata["env"] for f in dataclasses.fields(Settings) if "env" in f.metadata}
    others = {n: v for n, v in values.items() if _OF_A_PROVIDER.fullmatch(n) and n not in documented}
    settings = Settings(**found, of_providers=others)
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


def _read(metadata: Mapping[str, Any], values: Mapping[str, str]) -> Any:
    raw = values.get(metadata["env"], metadata["default"])
    return None if raw is None else parsed(metadata["env"], raw, metadata["parse"])


def _check_together(settings: Settings) -> None:
    if settings.workers > 1:
        raise SettingsError(
            f"WORKERS={settings.workers} needs REDIS_URL to share state between processes, and this version has no "
            "such sharing yet; raise THREADS instead"
        )
    if settings.tracing and not _installed("opentelemetry.exporter.otlp.proto.http"):
        raise SettingsError("TRACING needs OpenTelemetry: pip install 'ai-router[otel]'")
    if (settings.database_url or "").startswith("postgresql") and not _installed("psycopg"):
        raise SettingsError("DATABASE_URL of a PostgreSQL needs psycopg: pip install 'ai-router[postgres]'")
    if not is_loopback(settings.host) and not settings.api_keys and not settings.allow_unauthenticated:
        raise SettingsError(
            f"HOST {settings.host} is reachable from outside this machine: set AI_ROUTER_API_KEYS to one or more keys, "
            "or ALLOW_UNAUTHENTICATED=1 if you mean it"
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
