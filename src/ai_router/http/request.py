"""What to send and how long to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ai_router.errors import Source


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``first_byte`` runs until the caller says that it saw one, ``total`` until the answer is closed.

    ``idle`` is the longest wait of a single read. ``first_byte`` None: ``total`` is the only deadline, as for a plain
    answer, whose first byte comes when the last token is known.
    """

    connect: float
    total: float
    idle: float
    first_byte: float | None = None

    @property
    def longest_read(self) -> float:
        """What a single read may take: before the first byte, as long as that may."""
        return self.idle if self.first_byte is None else max(self.idle, self.first_byte)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP call of a backend. ``source`` names it in errors; the headers hold keys and are not shown."""

    source: Source
    method: str
    url: str
    timeouts: Timeouts
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    """The backend's key, to be kept out of what the backend says."""
