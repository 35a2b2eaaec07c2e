"""Embeddings: who makes them, and how. No decision is made, and nobody stands in.

Vectors of two models cannot be compared. So whoever makes them stays the same: EMBEDDINGS_URL where that is set, else
the primary if its server has this endpoint, else the sentence vectors in this process. A server that is down is an
error, never a reason to ask another one.
"""

from __future__ import annotations

import base64
import logging
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from ai_router.errors import InvalidRequest, UpstreamFailed
from ai_router.http.calls import FetchedResponse, Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.providers.errors import error_from_response
from ai_router.providers.registry import AUTO, Backend
from ai_router.routing.head.sentences import SIZE, SentenceVectors
from ai_router.token_estimates import estimated_tokens

log = logging.getLogger(__name__)

LOCAL_MODEL = "universal-sentence-encoder-multilingual-3"
_ENDPOINT = "/embeddings"
_MAX_INPUTS = 2_048
_MAX_CHARS = 200_000
"""Of all inputs of a request that is answered here: five seconds of one core."""
_MAX_ANSWER_BYTES = 256 << 20
_REMEMBERED_S = 3600.0
_HAS_NONE = frozenset({404, 405, 501})
_SAYS_NONE = ("does not support embeddings", "support embeddings api", "embeddings are not supported")
"""In the message of a 400: vLLM's, for a model that only writes."""
_ROUTES = (AUTO, "primary", "enrich", "xai", LOCAL_MODEL)


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """``inputs``: texts, or arrays of token ids. ``fields``: the client's other fields, without ``model``."""

    model: str
    inputs: Sequence[Any]
    fields: Mapping[str, Any]


class Embeddings:
    """Makes embeddings. ``server``: EMBEDDINGS_URL's; None: unset. ``primary``: None if it is the packaged model."""

    def __init__(
        self,
        client: UpstreamClient,
        server: Backend | None,
        primary: Backend | None,
        vectors: Callable[[], SentenceVectors],
        timeouts: Timeouts,
    ) -> None:
        self._client = client
        self._server = server
        self._primary = primary
        self._vectors = vectors
        self._timeouts = timeouts
        self._primary_again_at = 0.0
        """When the primary is asked again, after it has said that it makes none, in monotonic seconds."""

    def answer(self, request: EmbeddingsRequest, call: Callable[[], UpstreamCall], request_id: str) -> dict[str, Any]:
        """The object of OpenAI's API. Raises InvalidRequest, UpstreamError, or what a call was aborted for."""
        started = time.monotonic()
        backend, answer = self._answer(request, call, request_id)
        ms = (time.monotonic() - started) * 1000
        log.info("Embeddings: %s inputs=%d duration_ms=%.0f", backend, len(request.inputs), ms)
        return answer

    def _answer(
        self, request: EmbeddingsRequest, call: Callable[[], UpstreamCall], request_id: str
    ) -> tuple[str, dict[str, Any]]:
        if self._server is not None:
            named = request.model not in _ROUTES
            model = request.model if named else self._first_model(self._server, call())
            return self._server.name, self._asked(self._server, model, request, call(), request_id)
        if self._primary is not None and time.monotonic() >= self._primary_again_at:
            try:
                return self._primary.name, self._asked(self._primary, self._primary.model, request, call(), request_id)
            except _HasNone:
                self._primary_again_at = time.monotonic() + _REMEMBERED_S
        return "here", self._made_here(request)

    def _asked(
        self, backend: Backend, model: str, request: EmbeddingsRequest, call: UpstreamCall, request_id: str
    ) -> dict[str, Any]:
        body = orjson.dumps({"model": model, "input": list(request.inputs), **request.fields})
        asked = self._request(backend, model, "POST", _ENDPOINT, body, request_id)
        response = self._client.fetch(asked, call, _MAX_ANSWER_BYTES)
        if response.status != 200:
            if backend is self._primary and _says_that_it_has_none(response):
                raise _HasNone
            raise error_from_response(response.status, response.headers, response.body, asked)
        try:
            payload = orjson.loads(response.body)
        except orjson.JSONDecodeError:
            payload = None
        entries = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(entries, list) or not entries or not all(_is_embedding(entry) for entry in entries):
            raise UpstreamFailed("the answer holds no embeddings", asked.source)
        return cast(dict[str, Any], payload)

    def _first_model(self, backend: Backend, call: UpstreamCall) -> str:
        """The model that a server has, for a client that names none of its."""
        asked = self._request(backend, "", "GET", "/models", None, "")
        response = self._client.fetch(asked, call, _MAX_ANSWER_BYTES)
        try:
            return str(orjson.loads(response.body)["data"][0]["id"])
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
            raise UpstreamFailed("it does not say which models it has: name one", asked.source) from None

    def _request(
        self, backend: Backend, model: str, method: str, path: str, body: bytes | None, request_id: str
    ) -> UpstreamRequest:
        return UpstreamRequest(
            declared_local=backend.declared_local,
            source=backend.source._replace(model=model),
            method=method,
            url=backend.url(path),
            timeouts=self._timeouts,
            secret=backend.key,
            headers={**backend.headers, **({"X-Request-Id": request_id} if request_id else {})},
            body=body,
        )

    def _made_here(self, request: EmbeddingsRequest) -> dict[str, Any]:
        texts = _texts(request.inputs)
        if request.fields.get("dimensions") not in (None, SIZE):
            message = f"'dimensions' must be {SIZE}, or left out, for the model in this process"
            raise InvalidRequest(message, "dimensions")
        as_base64 = request.fields.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, as_base64=as_base64)}
            for index, vector in enumerate(self._vectors().of_whole(texts).tolist())
        ]
        tokens = sum(estimated_tokens(len(text)) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": LOCAL_MODEL, "usage": usage}


def _is_embedding(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("embedding"), (list, str))


class _HasNone(Exception):
    """A server does not make embeddings."""


def _says_that_it_has_none(response: FetchedResponse) -> bool:
    said = response.body[:2_000].decode("utf-8", "replace").lower()
    return response.status in _HAS_NONE or (response.status == 400 and any(words in said for words in _SAYS_NONE))


def _texts(inputs: Sequence[Any]) -> list[str]:
    """The inputs, which are texts. Raises InvalidRequest."""
    if not all(isinstance(text, str) for text in inputs):
        raise InvalidRequest(
            "'input' must be text for the model in this process, which has tokens of its own (LangChain: "
            "check_embedding_ctx_length=False)",
            "input",
        )
    if len(inputs) > _MAX_INPUTS:
        raise InvalidRequest(f"'input' may have {_MAX_INPUTS} texts at most", "input")
    if sum(map(len, inputs)) > _MAX_CHARS:
        raise InvalidRequest(f"'input' may have {_MAX_CHARS} characters at most for the model in this process", "input")
    return list(inputs)


def _encoded(vector: list[float], *, as_base64: bool) -> Any:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if as_base64 else vector
