"""Threads as values: whose they are, and what a message may be.

A message that is being answered has the status ``streaming``, an owner (the process that answers it) and a lease, which
the owner renews. Whoever finds a lease that has expired marks the message ``interrupted``: its owner has died.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_router.errors import NotFound

Row = Mapping[str, Any]
"""The values of a row by the names of its columns."""

COMPLETE, STREAMING, CANCELLED, ERROR, INTERRUPTED = "complete", "streaming", "cancelled", "error", "interrupted"
"""What a message may be."""
LEASE_S = 15.0
"""How long a lease lasts; it is renewed every third of that."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose threads: those of an organization, and in it of one client; ``client`` None: of everybody in it."""

    organization: str
    client: str | None


class ThreadNotFound(NotFound):
    """404: no thread of that id, or no message of that id in it; another org's and another key's are none."""

    code = "thread_not_found"

    def __init__(self, what: str = "thread") -> None:
        super().__init__(f"no such {what}")
        self.code = f"{what}_not_found"
