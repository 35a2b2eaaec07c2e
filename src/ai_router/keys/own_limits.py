"""The limits of keys in this process alone, for while Redis cannot be reached."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

from ai_router.keys.ledger import Admitted
from ai_router.virtual_key import KeyLimits

_MINUTE_S = 60.0


class _Used:
    def __init__(self) -> None:
        self.recent: deque[tuple[float, int]] = deque()
        """When each request of the last minute came, and its tokens."""
        self.running: set[str] = set()


class OwnLimits:
    """Counts what was asked here. ``share``: by how many the limits are divided. Safe from any thread."""

    def __init__(self, share: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._used: defaultdict[str, _Used] = defaultdict(_Used)

    def admit(self, key_id: str, limits: KeyLimits, session_id: str, tokens: int) -> Admitted:
        """Count a request, unless this process's share of a limit keeps it out."""
        now, share = self._clock(), max(1, self._share())
        with self._lock:
            used = self._used[key_id]
            while used.recent and used.recent[0][0] <= now - _MINUTE_S:
                used.recent.popleft()
            count, sum_of_tokens = len(used.recent), sum(each for _, each in used.recent)
            reset_s = used.recent[0][0] + _MINUTE_S - now if used.recent else 0.0
            limit = ""
            if count >= _part(limits.requests_per_minute, share):
                limit = "requests"
            elif sum_of_tokens and sum_of_tokens + tokens > _part(limits.tokens_per_minute, share):
                limit = "tokens"
            elif len(used.running) >= _part(limits.concurrency, share):
                limit = "concurrency"
            else:
                used.recent.append((now, tokens))
                used.running.add(session_id)
                count, sum_of_tokens = count + 1, sum_of_tokens + tokens
        wait_s = reset_s if limit in ("requests", "tokens") else 0.0
        return Admitted(limit, wait_s, count, reset_s, sum_of_tokens, reset_s)

    def ended(self, key_id: str, session_id: str) -> None:
        """A request is no longer under way."""
        with self._lock:
            if (used := self._used.get(key_id)) is not None:
                used.running.discard(session_id)


def _part(limit: int | None, share: int) -> float:
    return float("inf") if limit is None else max(1, limit // share)
