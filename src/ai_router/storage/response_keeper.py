"""Answers of the Responses API, kept so that the next turn can go on with one (``previous_response_id``).

No backend keeps anything: the router does, for each client apart, and puts the whole conversation together again. So
each turn can be decided anew. An answer is in memory at once, for an hour, and in the database a moment later, for 30
days. Where sessions keep no words (SESSION_BODIES), these are in memory only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from cachetools import TTLCache

from ai_router.client_apis.reading import as_json
from ai_router.errors import NotFound, StoreUnavailable
from ai_router.storage.kept_response import KeptResponse
from ai_router.storage.lazy_store import LazyStore
from ai_router.types import Outcome, Status

if TYPE_CHECKING:
    from ai_router.storage.responses import ResponseStore

log = logging.getLogger(__name__)

_IN_MEMORY_S = 3600.0
_IN_MEMORY_BYTES = 64 << 20
_MAX_UNWRITTEN = 1_000
_MAX_TURNS = 1_000
"""Of a conversation that is put together again."""


class ResponseNotFound(NotFound):
    """404: no such answer, or somebody else's."""

    code = "response_not_found"

    def __init__(self, response_id: str, param: str | None = None) -> None:
        super().__init__(f"there is no response '{response_id[:128]}' here; they are kept for 30 days")
        self.param = param


class ResponseKeeper:
    """Keeps answers. ``open_store``: the database; None: memory only. ``settle`` waits for what is just ending.
    ``scrub`` takes known keys out of JSON. Safe from any thread."""

    def __init__(
        self,
        open_store: LazyStore[ResponseStore] | None,
        settle: Callable[[], object] = lambda: None,
        scrub: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._scrub = scrub
        self._open_store = open_store
        self._settle = settle
        self._lock = threading.Lock()
        self._recent: TTLCache[tuple[str, str], KeptResponse] = TTLCache(
            _IN_MEMORY_BYTES, _IN_MEMORY_S, getsizeof=lambda kept: len(kept.input_json) + len(kept.response_json)
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="responses")
        self._unwritten = 0

    def close(self) -> None:
        """Write what has not been written yet."""
        self._writer.shutdown()

    def note(self, outcome: Outcome) -> None:
        """Keep the answer of a finished request, if its client may go on with it."""
        own = outcome.request.own
        if own is None or outcome.own_answer is None or outcome.status is not Status.OK or not own.kept.get("store"):
            return
        answer, previous = dict(outcome.own_answer), own.kept.get("previous")
        response_id = answer.get("id")
        if not isinstance(response_id, str) or len(response_id) > 128:
            return
        answer |= {"store": True, "previous_response_id": previous}
        turn = as_json(own.kept["input"]).encode()
        kept = KeptResponse(response_id, outcome.request.client, previous, turn, as_json(answer).encode())
        with self._lock:
            if len(turn) + len(kept.response_json) < _IN_MEMORY_BYTES:
                self._recent[kept.client, kept.id] = kept
            is_written = self._open_store is not None and self._unwritten < _MAX_UNWRITTEN
            self._unwritten += is_written
        if is_written:
            self._writer.submit(self._write, kept)

    def _write(self, kept: KeptResponse) -> None:
        try:
            if self._open_store is not None:
                cleaned = replace(
                    kept, input_json=self._scrub(kept.input_json), response_json=self._scrub(kept.response_json)
                )
                self._open_store.store().add(cleaned)
        except StoreUnavailable as problem:
            log.warning("Response not saved: %s error=%s", kept.id, problem.detail)
        finally:
            with self._lock:
                self._unwritten -= 1

    def get(self, response_id: str, client: str, param: str | None = None) -> KeptResponse:
        """The client's answer of that id. Raises ResponseNotFound, which names ``param``, and StoreUnavailable."""
        found = self._in_memory(response_id, client)
        if found is None:
            # A client can have its answer a moment before the response has closed.
            self._settle()
            found = self._in_memory(response_id, client)
        if found is None and self._open_store is not None:
            found = self._open_store.store().get(response_id, client)
        if found is None:
            raise ResponseNotFound(response_id, param)
        return found

    def delete(self, response_id: str, client: str) -> None:
        """Forget an answer. Raises as ``get`` does."""
        self.get(response_id, client)
        with self._lock:
            self._recent.pop((client, response_id), None)
        if self._open_store is not None:
            # Behind what is still to be written.
            self._writer.submit(self._open_store.store().delete, response_id, client).result()

    def continued(self, payload: dict[str, Any], client: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """The body of a request with the whole conversation as its input, and the input of this turn alone, as
        ``{"input": ...}``. Raises as ``get`` does."""
        previous, given = payload.get("previous_response_id"), payload.get("input")
        turn = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
        if not isinstance(previous, str) or not previous or not isinstance(turn, list):
            return payload, {"input": turn}
        earlier: list[list[Any]] = []
        following: str | None = previous
        seen: set[str] = set()
        while following is not None and following not in seen and len(earlier) < _MAX_TURNS:
            seen.add(following)
            kept = self.get(following, client, "previous_response_id")
            earlier.append([*orjson.loads(kept.input_json), *(orjson.loads(kept.response_json).get("output") or ())])
            following = kept.previous
        whole = [item for items in reversed(earlier) for item in items]
        return {**payload, "input": [*whole, *turn]}, {"input": turn}

    def _in_memory(self, response_id: str, client: str) -> KeptResponse | None:
        with self._lock:
            found: KeptResponse | None = self._recent.get((client, response_id))
        return found
