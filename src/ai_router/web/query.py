"""Reading the parameters of a GET; a bad one is told by its name."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date

from flask import request

from ai_router.errors import InvalidRequest

_FIRST_YEAR = 2000


def known(names: Collection[str]) -> None:
    """Refuse a parameter that is none of these: a misspelt filter must not look like one that finds everything."""
    for name in request.args:
        if name not in names:
            raise InvalidRequest(f"'{name[:50]}' is no parameter here; there are {', '.join(sorted(names))}", name[:50])


def one_of(name: str, values: Collection[str]) -> str | None:
    """A word of these, or None without it."""
    value = request.args.get(name)
    if value is not None and value not in values:
        raise InvalidRequest(f"'{name}' must be one of {', '.join(values)}", name)
    return value


def several_of(name: str, values: Collection[str], default: str) -> list[str]:
    """Words of these, separated by commas, each once."""
    found = [part.strip() for part in request.args.get(name, default).split(",") if part.strip()]
    for part in found:
        if part not in values:
            raise InvalidRequest(f"'{name}' takes {', '.join(values)}, not '{part[:50]}'", name)
    return list(dict.fromkeys(found))


def matching(name: str, pattern: re.Pattern[str], what: str) -> str | None:
    """A value of that form, or None without it."""
    value = request.args.get(name)
    if value is not None and not pattern.fullmatch(value):
        raise InvalidRequest(f"'{name}' must be {what}", name)
    return value


def integer(name: str, low: int, high: int, default: int) -> int:
    """A number within limits."""
    value = request.args.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 12 and low <= int(value) <= high):
        raise InvalidRequest(f"'{name}' must be a whole number from {low} to {high}", name)
    return int(value)


def day(name: str, default: date) -> date:
    """A day as in 2026-11-22."""
    value = request.args.get(name)
    if value is None:
        return default
    try:
        found = date.fromisoformat(value)
    except ValueError:
        found = date.min
    if found.year < _FIRST_YEAR:
        raise InvalidRequest(f"'{name}' must be a day like 2026-11-22", name)
    return found
