"""What a virtual key may do: a key that the router's owner has made for somebody, kept in the database."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

ID_PREFIX = "vk-"
SECRET_PREFIX = "sk-air-"  # noqa: S105 - what all secrets of virtual keys begin with
DEFAULT_ROUTES = frozenset({"primary", "xai", "enrich", "meta", "embeddings"})
"""Those of a key of which nothing else is said: what the router decides by itself, and embeddings."""
_SHOWN_CHARS = len(SECRET_PREFIX) + 4


class AtLimit(StrEnum):
    """What happens once a budget is used up."""

    REFUSE = "refuse"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The most per minute, at a time, per day and per month (UTC); None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    daily_usd: float | None = None
    monthly_usd: float | None = None

    @property
    def has_budget(self) -> bool:
        """Whether money is limited."""
        return self.daily_usd is not None or self.monthly_usd is not None

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return self.has_budget or any(
            limit is not None for limit in (self.requests_per_minute, self.tokens_per_minute, self.concurrency)
        )


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """``id``: the name of the key in usage, sessions and threads; it stays when the secret is changed.

    ``organization``: the org that all of its requests belong to; empty: what the client says. ``user``: for the owner's
    eyes. ``routes``: those that it may be decided to or name. ``models``: the models that it may name, as patterns
    ``provider/model`` with ``*``. ``expires_at``: seconds since 1970; None: never.
    """

    id: str
    name: str
    organization: str = ""
    user: str = ""
    routes: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    at_limit: AtLimit = AtLimit.REFUSE
    expires_at: float | None = None
    local_only: bool = False
    """Whether nothing of its requests may leave the local network."""
    quality: int | None = None
    """Of its requests that say nothing of it (routing/dial.py); None: as the settings say."""

    def may_name(self, model: str) -> bool:
        """Whether it may name this model, as ``provider/model``."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


def new_id() -> str:
    """An id for a new key."""
    return f"{ID_PREFIX}{secrets.token_hex(5)}"


def new_secret() -> str:
    """A secret for a key: 256 random bits, so that a plain digest of it tells nothing."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: bytes) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret).hexdigest()


def shown_part(secret: str) -> str:
    """The beginning of a secret, by which its owner recognises it in a list."""
    return f"{secret[:_SHOWN_CHARS]}..."
