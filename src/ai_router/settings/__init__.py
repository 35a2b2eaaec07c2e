"""The settings: one frozen value, read once at start."""

from __future__ import annotations

from ai_router.settings.parse import MaxTokensPolicy, SettingsError
from ai_router.settings.reading import SettingInfo, documented_settings, is_loopback, load_settings, unknown_names
from ai_router.settings.values import ClassifierMode, LogFormat, SessionBodies, Settings, SpeculationMode

__all__ = [
    "ClassifierMode",
    "LogFormat",
    "MaxTokensPolicy",
    "SessionBodies",
    "SettingInfo",
    "Settings",
    "SettingsError",
    "SpeculationMode",
    "documented_settings",
    "is_loopback",
    "load_settings",
    "unknown_names",
]
