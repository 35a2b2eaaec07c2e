"""The settings as documentation needs them, and names in a .env file that are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ai_router.config import FIELDS, Settings
from ai_router.config_values import read_file


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting as documentation needs it."""

    env: str
    default: str | None
    doc: str


def documented_settings() -> tuple[SettingInfo, ...]:
    """Every setting with its variable, default and meaning, in the order of the class."""
    fields = ((name, Settings.model_fields[field]) for name, field in FIELDS.items())
    return tuple(SettingInfo(name, field.default, field.description or "") for name, field in fields)


def unknown_names(dotenv: Path = Path(".env")) -> tuple[str, ...]:
    """Names in the .env file that are no settings: perhaps misspelt ones."""
    return tuple(name for name in read_file(dotenv) if name not in FIELDS)
