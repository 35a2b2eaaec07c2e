"""What the primary can do, as its server says: the size of its context, whether it takes tools, whether it sees.

vLLM tells the context in its list of models (``max_model_len``), llama.cpp there (``meta.n_ctx``) and the rest at
/props. Others tell nothing: then nothing is known, and everything is tried.

It is asked when a request or a client wants to know, never in a request's way, and again after ten minutes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ai_router.errors import UpstreamError
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.providers.catalogue import Model
from ai_router.providers.registry import Backend

_GOOD_FOR_S = 600.0
_AGAIN_AFTER_S = 15.0
"""After a failure."""
_TIMEOUTS = Timeouts(connect=2.0, total=3.0, idle=3.0, first_byte=None)
_MAX_BODY_BYTES = 1 << 20
_LLAMA_CPP = "llamacpp"


class PrimaryFacts:
    """Asks the primary, and keeps what it says in ``backend.learned``. Safe from any thread."""

    def __init__(self, session: BackendSession, backend: Backend) -> None:
        self._session = session
        self._backend = backend
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next_at = 0.0

    def want(self) -> None:
        """See to it that the facts are known soon. Returns at once."""
        with self._lock:
            if not self._backend.learned.may_change or time.monotonic() < self._next_at:
                return
            # Nobody else asks meanwhile.
            self._next_at = time.monotonic() + _AGAIN_AFTER_S
            self._thread = threading.Thread(target=self._ask, name="primary-facts", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """The same, and wait for them, at most so long."""
        self.want()
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def _ask(self) -> None:
        facts = facts_in(self._fetch(self._backend.url("/models")), self._backend.model)
        if facts is None:
            return
        entry, context = facts
        props = None
        if entry.get("owned_by") == _LLAMA_CPP:
            props = self._fetch(f"{self._backend.base_url}/props")
        self._backend.learned.facts = Model(context=context, capabilities=capabilities_in(props))
        self._next_at = time.monotonic() + _GOOD_FOR_S

    def _fetch(self, url: str) -> Any:
        """The JSON at a URL; None if there is none."""
        asked = UpstreamRequest(
            source=self._backend.source,
            method="GET",
            url=url,
            timeouts=_TIMEOUTS,
            secret=self._backend.key,
            headers=self._backend.headers,
        )
        try:
            response = self._session.fetch(asked, _MAX_BODY_BYTES)
            return orjson.loads(response.body) if response.status == 200 else None
        except (UpstreamError, orjson.JSONDecodeError):
            return None


def facts_in(listing: Any, model: str) -> tuple[Mapping[str, Any], int | None] | None:
    """The entry of a list of models for ``model``, or the only one, and the size of its context in tokens; None if
    there is no such entry."""
    entries = listing.get("data") if isinstance(listing, Mapping) else None
    found = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    named = [entry for entry in found if entry.get("id") == model] or (found if len(found) == 1 else [])
    if not named:
        return None
    meta = named[0].get("meta")
    sizes = (named[0].get("max_model_len"), meta.get("n_ctx") if isinstance(meta, Mapping) else None)
    return named[0], next((size for size in sizes if isinstance(size, int) and size > 0), None)


def capabilities_in(props: Any) -> frozenset[Any] | None:
    """The capabilities that llama.cpp's /props tells; None where it tells none."""
    if not isinstance(props, Mapping):
        return None
    template, sees = props.get("chat_template_caps"), props.get("modalities")
    if not isinstance(template, Mapping) or not isinstance(sees, Mapping):
        return None
    has = {"tools": template.get("supports_tools"), "vision": sees.get("vision"), "reasoning": True}
    return frozenset(name for name, is_there in has.items() if is_there)
