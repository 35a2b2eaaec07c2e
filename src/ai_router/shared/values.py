"""Small values with a time to live, by name. Reading takes one round trip; writing takes none, for a thread does it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ai_router.observability.recorder import Batches
from ai_router.shared.client import SharedClient, SharedUnavailable

log = logging.getLogger(__name__)

PREFIX = "ai-router:"
_QUEUE_LIMIT = 10_000
"""How many values wait to be written at most; any beyond that are not shared."""
_GATHER_S = 0.002


class Values(Protocol):
    """Values that all processes see. Safe from any thread."""

    def get(self, names: Sequence[str]) -> Sequence[bytes | None] | None:
        """The values of these names, each None if there is none; None if nobody knows."""

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """Have a value kept for ``ttl_s`` seconds. Returns at once."""

    def delete(self, name: str) -> None:
        """Have a value forgotten. Returns at once."""

    def flush(self) -> None:
        """Write what waits now."""


class NoValues:
    """For a process that is alone: nothing is shared."""

    def get(self, names: Sequence[str]) -> Sequence[bytes | None] | None:  # noqa: ARG002 - nobody knows
        return None

    def put(self, name: str, value: bytes, ttl_s: float) -> None: ...
    def delete(self, name: str) -> None: ...
    def flush(self) -> None: ...


class _Write(NamedTuple):
    """``value`` None: to be forgotten."""

    name: str
    value: bytes | None
    ttl_ms: int


class SharedValues:
    """Values in Redis, under PREFIX. What cannot be written is dropped: each value can be done without."""

    def __init__(self, client: SharedClient) -> None:
        self._client = client
        self._writes: Batches[_Write] = Batches(
            self._write, name="shared-values", limit=_QUEUE_LIMIT, gather_s=_GATHER_S
        )

    def start(self) -> None:
        """Start the thread that writes."""
        self._writes.start()

    def close(self) -> None:
        """Write what waits, then stop."""
        self._writes.close()

    def get(self, names: Sequence[str]) -> Sequence[bytes | None] | None:
        try:
            found: Sequence[bytes | None] = self._client.call(lambda redis: redis.mget([PREFIX + n for n in names]))
        except SharedUnavailable:
            return None
        return found

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        self._writes.put(_Write(name, value, max(1, int(ttl_s * 1000))))

    def delete(self, name: str) -> None:
        self._writes.put(_Write(name, None, 0))

    def flush(self) -> None:
        self._writes.flush()

    def _write(self, writes: list[_Write]) -> None:
        try:
            self._client.call(lambda redis: _write_all(redis, writes))
        except SharedUnavailable as problem:
            log.debug("%d values are not shared: %s", len(writes), problem)


def _write_all(redis: Any, writes: Sequence[_Write]) -> None:
    with redis.pipeline(transaction=False) as pipeline:
        for name, value, ttl_ms in writes:
            if value is None:
                pipeline.delete(PREFIX + name)
            else:
                pipeline.set(PREFIX + name, value, px=ttl_ms)
        pipeline.execute()
