"""A virtual key as it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ai_router.virtual_key import AtLimit, KeyLimits, VirtualKey


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key, the digests of its secrets, and how the present one begins. Moments in seconds since 1970."""

    key: VirtualKey
    digest: str
    shown: str
    old_digest: str | None
    old_until: float | None
    created_at: float
    revoked_at: float | None


def key_of(row: Mapping[str, Any]) -> VirtualKey:
    """The key of a row of the database."""
    return VirtualKey(
        id=row["id"],
        name=row["name"],
        organization=row["organization"],
        user=row["user"],
        routes=frozenset(row["routes"]),
        models=tuple(row["models"]),
        limits=KeyLimits(**{field.name: row[field.name] for field in fields(KeyLimits)}),
        at_limit=AtLimit(row["at_limit"]),
        expires_at=row["expires_at"],
        local_only=row["local_only"],
        quality=row["quality"],
    )
