"""Answers of the Responses API, kept so that the next turn can go on with one (``previous_response_id``).

No backend keeps anything: the router does, for each client apart, and puts the whole conversation together again. So
each turn can be decided anew. An answer is in memory at once, for an hour, and in the database a moment later, for 30
days. Where sessions keep no words (SESSION_BODIES), these are in memory only: of this process, and of what it shares
with others. One that is not found may be another process's that has just answered: the others are asked to write
theirs, before it is said not to be there.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import orjson
from cachetools import TTLCache

from ai_router.client_apis.reading import as_json
from ai_router.errors import NotFound, StoreUnavailable
from ai_router.local_policy import marked_local_only, says_local_only
from ai_router.shared.client import SharedUnavailable
from ai_router.shared.start import ALONE, Shared
from ai_router.storage.kept_response import KeptResponse
from ai_router.storage.lazy_store import LazyStore
from ai_router.types import Outcome, Status

if TYPE_CHECKING:
    from ai_router.storage.responses import ResponseStore

log = logging.getLogger(__name__)

_IN_MEMORY_S = 3600.0
_IN_MEMORY_BYTES = 64 << 20
_MAX_UNWRITTEN = 1_000
_OTHERS_S = 1.0
"""How long to wait for other processes to write theirs."""
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
    ``scrub`` takes known keys out of JSON. ``shared``: with other processes. Safe from any thread."""

    def __init__(
        self,
        open_store: LazyStore[ResponseStore] | None,
        settle: Callable[[], object] = lambda: None,
        scrub: Callable[[bytes], bytes] = bytes,
        shared: Shared = ALONE,
    ) -> None:
        self._scrub = scrub
        self._shared = shared
        self._open_store = open_store
        self._settle = settle
        self._lock = threading.Lock()
        self._recent: TTLCache[tuple[str, str], KeptResponse] = TTLCache(
            _IN_MEMORY_BYTES, _IN_MEMORY_S, getsizeof=lambda kept: len(kept.input_json) + len(kept.response_json)
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="responses")
        self._unwritten = 0
        shared.peers.on("write_responses", self._write_for_another)
        shared.peers.on("forget_response", self._forget_for_another)

    def close(self) -> None:
        """Write what has not been written yet."""
        self._writer.shutdown()

    def note(self, outcome: Outcome) -> None:
        """Keep the answer of a finished request, if its client may go on with it."""
        form = outcome.request.client_form
        if (
            form is None
            or outcome.client_answer is None
            or outcome.status is not Status.OK
            or not form.kept.get("store")
        ):
            return
        answer, previous = dict(outcome.client_answer), form.kept.get("previous")
        response_id = answer.get("id")
        if not isinstance(response_id, str) or len(response_id) > 128:
            return
        answer |= {"store": True, "previous_response_id": previous}
        if outcome.request.local_only:
            # For the turns that go on with it.
            answer = marked_local_only(answer)
        turn = as_json(form.kept["input"]).encode()
        kept = KeptResponse(response_id, outcome.request.client, previous, turn, as_json(answer).encode())
        with self._lock:
            if len(turn) + len(kept.response_json) < _IN_MEMORY_BYTES:
                self._recent[kept.client, kept.id] = kept
            is_written = self._open_store is not None and self._unwritten < _MAX_UNWRITTEN
            self._unwritten += is_written
        if self._open_store is None:
            value = _as_value(self._scrubbed(kept))
            self._shared.values.put(_value_name(kept.client, kept.id), value, _IN_MEMORY_S)
        elif is_written:
            self._writer.submit(self._write, kept)

    def _write(self, kept: KeptResponse) -> None:
        try:
            if self._open_store is not None:
                self._open_store.store().add(self._scrubbed(kept))
        except StoreUnavailable as problem:
            log.warning("Response not saved: %s error=%s", kept.id, problem.detail)
        finally:
            with self._lock:
                self._unwritten -= 1

    def _scrubbed(self, kept: KeptResponse) -> KeptResponse:
        return replace(kept, input_json=self._scrub(kept.input_json), response_json=self._scrub(kept.response_json))

    def get(self, response_id: str, client: str, param: str | None = None) -> KeptResponse:
        """The client's answer of that id. Raises ResponseNotFound, which names ``param``, and StoreUnavailable."""
        found = self._in_memory(response_id, client)
        if found is None:
            # A client can have its answer a moment before the response has closed.
            self._settle()
            found = self._in_memory(response_id, client)
        found = found or self._written(response_id, client)
        if found is None and self._asked_others("write_responses", None):
            found = self._written(response_id, client)
        if found is None:
            raise ResponseNotFound(response_id, param)
        return found

    def _written(self, response_id: str, client: str) -> KeptResponse | None:
        """The answer in the database, or where processes share what is not to be in it."""
        if self._open_store is not None:
            return self._open_store.store().get(response_id, client)
        (value,) = self._shared.values.get([_value_name(client, response_id)]) or (None,)
        return None if value is None else _from_value(value)

    def delete(self, response_id: str, client: str) -> None:
        """Forget an answer. Raises as ``get`` does, and SharedUnavailable where others could still know it."""
        self.get(response_id, client)
        self._shared.peers.ask("forget_response", {"id": response_id, "client": client}, _OTHERS_S)
        self._forget(response_id, client)
        self._shared.values.delete(_value_name(client, response_id))
        if self._open_store is not None:
            # Behind what is still to be written.
            self._writer.submit(self._open_store.store().delete, response_id, client).result()

    def _forget(self, response_id: str, client: str) -> None:
        with self._lock:
            self._recent.pop((client, response_id), None)

    def _asked_others(self, topic: str, payload: Any) -> bool:
        """Whether any other process has done what was asked."""
        try:
            return bool(self._shared.peers.ask(topic, payload, _OTHERS_S))
        except SharedUnavailable:
            return False

    def _write_for_another(self, _payload: object) -> bool:
        self._settle()
        self._writer.submit(bool).result(_OTHERS_S)
        self._shared.values.flush()
        return True

    def _forget_for_another(self, payload: Mapping[str, str]) -> bool:
        self._forget(payload["id"], payload["client"])
        return self._write_for_another(None)

    def continued(self, payload: dict[str, Any], client: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """The body of a request with the whole conversation as its input, and the input of this turn alone, as
        ``{"input": ...}``. It is local-only if any turn before was. Raises as ``get`` does."""
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
            answer = orjson.loads(kept.response_json)
            if says_local_only(answer):
                payload = marked_local_only(payload)
            earlier.append([*orjson.loads(kept.input_json), *(answer.get("output") or ())])
            following = kept.previous
        whole = [item for items in reversed(earlier) for item in items]
        return {**payload, "input": [*whole, *turn]}, {"input": turn}

    def _in_memory(self, response_id: str, client: str) -> KeptResponse | None:
        with self._lock:
            found: KeptResponse | None = self._recent.get((client, response_id))
        return found


def _value_name(client: str, response_id: str) -> str:
    return f"response:{hashlib.blake2b(f'{client}/{response_id}'.encode(), digest_size=16).hexdigest()}"


def _as_value(kept: KeptResponse) -> bytes:
    texts = {"input_json": kept.input_json.decode(), "response_json": kept.response_json.decode()}
    return orjson.dumps(asdict(kept) | texts)


def _from_value(value: bytes) -> KeptResponse:
    fields = orjson.loads(value)
    texts = {name: fields[name].encode() for name in ("input_json", "response_json")}
    return KeptResponse(**{**fields, **texts})
