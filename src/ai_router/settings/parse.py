"""From a variable's text to its value; ValueError has the rest of a sentence that begins with the setting's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit


class SettingsError(ValueError):
    """A setting that cannot work. The message is one line and starts with the setting's name."""


def parsed(env: str, raw: str, parser: Callable[[str], Any]) -> Any:
    """The value of a setting. Raises SettingsError."""
    try:
        return parser(raw)
    except ValueError as problem:
        raise SettingsError(f"{env} {problem}") from None


@dataclass(frozen=True, slots=True)
class MaxTokensPolicy:
    """What happens to a client's max_tokens on its way to the primary: ``strip``, ``pass`` or ``add`` extra tokens.

    ``auto`` is strip for a configured primary, taken to be a reasoning model that would spend a small budget on
    thinking and answer nothing, and pass for the embedded one.
    """

    kind: str
    extra: int = 0


def text(value: str) -> str:
    return value


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"must be a whole number, not {value!r}") from None
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}, not {number}")
        return number

    return parse


def seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number of seconds, not {value!r}") from None
    if not 0 < number <= 86_400:
        raise ValueError(f"must be more than 0 and at most 86400 seconds, not {value}")
    return number


def share(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number from 0 to 1, not {value!r}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"must be from 0 to 1, not {value}")
    return number


def switch(value: str) -> bool:
    lowered = value.lower()
    if lowered in ("on", "true", "yes", "1"):
        return True
    if lowered in ("off", "false", "no", "0"):
        return False
    raise ValueError(f"must be on or off, not {value!r}")


E = TypeVar("E", bound=StrEnum)


def choice(kind: type[E]) -> Callable[[str], E]:
    def parse(value: str) -> E:
        try:
            return kind(value.lower())
        except ValueError:
            raise ValueError(f"must be one of {', '.join(kind)}, not {value!r}") from None

    return parse


def base_url(value: str) -> str:
    """``http(s)://host[:port][/path]`` without /v1 and without a trailing slash."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as problem:
        raise ValueError(f"is not a URL: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[^!-~]", value):
        raise ValueError("must look like http://host:port")
    if parts.username or parts.password:
        raise ValueError("must not carry credentials; keys have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("must not carry a query or a fragment")
    return value.rstrip("/").removesuffix("/v1").rstrip("/")


def secret(value: str) -> str:
    """A key as it will stand in a header. The message never repeats the value."""
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be printable ASCII without spaces (the value is not shown here)")
    return value


def secrets(value: str) -> tuple[str, ...]:
    keys = tuple(secret(part.strip()) for part in value.split(",") if part.strip())
    if not keys:
        raise ValueError("must hold at least one key, separated by commas (the value is not shown here)")
    return keys


def path(value: str) -> Path:
    return Path(value).expanduser()


def amount(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"must be a number, not {value!r}") from None
    if not 0 <= number <= 1_000_000:
        raise ValueError(f"must be from 0 to 1000000, not {value}")
    return number


def database_url(value: str) -> str:
    """``sqlite:///file`` or ``postgresql://user:password@host/name``. The message never repeats the value."""
    scheme, found, rest = value.partition("://")
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise ValueError("has a port that is no number (it is not shown here)") from None
    if not found or scheme.partition("+")[0] not in ("sqlite", "postgresql", "postgres") or not rest:
        raise ValueError("must look like sqlite:///file or postgresql://user:password@host/name (it is not shown here)")
    if scheme.partition("+")[0] == "sqlite":
        return f"sqlite://{rest}"
    return f"postgresql://{rest}"


def max_tokens_policy(value: str) -> MaxTokensPolicy:
    kind, _, extra = value.lower().partition(":")
    if kind in ("auto", "strip", "pass") and not extra:
        return MaxTokensPolicy(kind)
    if kind == "add" and extra.isdigit() and 0 < int(extra) <= 1_000_000:
        return MaxTokensPolicy("add", int(extra))
    raise ValueError(f"must be auto, strip, pass or add:N with N from 1 to 1000000, not {value!r}")
