"""Asking a backend for the answer: one call, opened as far as it takes to know that it is one.

A plain answer is read whole. A stream is read up to its first event that says something; until then the client has not
seen a byte and another backend may be asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from ai_router.errors import Aborted, UpstreamBroken, UpstreamError, UpstreamFailed
from ai_router.exchange import Attempt, ChatRequest
from ai_router.execution.answer import AnswerReader
from ai_router.execution.primary_load import PrimaryLoad
from ai_router.providers.refusals import failure_in, refusal
from ai_router.providers.registry import Backend, Registry
from ai_router.providers.shaping import chat_body
from ai_router.settings import MaxTokensPolicy
from ai_router.upstream.call import Call
from ai_router.upstream.client import UpstreamClient, UpstreamResponse
from ai_router.upstream.leg import Leg
from ai_router.upstream.sse import Event, EventTooLong, SSEDecoder

_MAX_ANSWER = 64 << 20
_MAX_COMPLAINT = 1 << 20
_END_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend and the model to ask of it."""

    backend: Backend
    model: str


class PlainAnswer:
    """A whole ``chat.completion``: the bytes for the client, and what they say."""

    def __init__(
        self, body: bytes, message: Mapping[str, Any], usage: Mapping[str, Any] | None, attempt: Attempt
    ) -> None:
        self.body = body
        self.message = message
        self.usage = usage
        self._attempt = attempt

    def attempt(self) -> Attempt:
        """The call that it took."""
        return self._attempt

    def close(self) -> None:
        """Nothing is open any more."""


class StreamAnswer:
    """A stream whose first event is here. ``chunks`` relays it; ``close`` in any case."""

    def __init__(
        self, response: UpstreamResponse, call: Call, *, started: float, arrived_at: float, hide_usage: bool
    ) -> None:
        self.reader = AnswerReader()
        self.status = response.status
        self.connect_ms = response.connect_ms
        self.ttft_ms: float | None = None
        self.done = False
        """Whether the backend's [DONE] has come."""
        self.skipped = 0
        """Events that were not valid JSON and were left out."""
        self._response = response
        self._chunks = response.chunks()
        self._call = call
        self._started = started
        self._arrived_at = arrived_at
        self._hide_usage = hide_usage
        self._decoder = SSEDecoder()
        self._failure: UpstreamError | None = None
        self._primed = b""
        self._closing = ExitStack()
        self._closing.callback(response.close)

    def until_closed(self, held: ExitStack) -> None:
        """Let go of what is held for this call when it is closed."""
        self._closing.push(held)

    def prime(self) -> None:
        """Read up to the first event with data. Raises UpstreamError if an error or nothing comes instead."""
        while self.ttft_ms is None:
            chunk = next(self._chunks, None)
            self._primed += self._rest() if chunk is None else self._take(chunk)
            if self._failure is not None:
                raise self._failure
            if chunk is None and self.ttft_ms is None:
                raise UpstreamFailed("the stream ended before it began", self._call.source)

    def chunks(self) -> Iterator[bytes]:
        """The bytes for the client, whole events only, as they arrive.

        Raises UpstreamError when the backend fails or leaves before the answer is finished: what was sent until then
        stands, and the caller has to say that it is not all.
        """
        if self._primed:
            yield self._primed
            self._primed = b""
        try:
            for chunk in self._chunks:
                relayed = self._take(chunk)
                if relayed:
                    yield relayed
                if self._failure is not None:
                    raise self._failure
        except (Aborted, UpstreamError):
            # After [DONE] nothing is missing, whoever left or broke off then.
            if self.done:
                return
            raise
        if last := self._rest():
            yield last
        if not (self.done or self.reader.finish_reason):
            raise self._failure or UpstreamBroken("the stream ended before the answer did", self._call.source)

    def close(self) -> None:
        """Give the connection back, or up. Idempotent."""
        self._closing.close()

    def attempt(self, error: str | None = None) -> Attempt:
        """What the call has come to by now."""
        return Attempt(
            backend=self._call.source.backend,
            model=self._call.source.model,
            started_ms=(self._started - self._arrived_at) * 1000,
            duration_ms=_ms_since(self._started),
            stream=True,
            status=self.status,
            connect_ms=self.connect_ms,
            ttft_ms=self.ttft_ms,
            finish_reason=self.reader.finish_reason,
            error=error,
        )

    def _take(self, chunk: bytes) -> bytes:
        try:
            events = self._decoder.feed(chunk)
        except EventTooLong as problem:
            self._failure = UpstreamBroken(str(problem), self._call.source)
            return b""
        return self._kept(events)

    def _kept(self, events: list[Event]) -> bytes:
        kept = []
        for event in events:
            if self._observe(event):
                kept.append(event.raw)
            if self._failure is not None:
                break
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def _observe(self, event: Event) -> bool:
        """Look at an event; whether the client gets it."""
        data = event.data
        if data is None:
            return True
        if data == b"[DONE]":
            if self.ttft_ms is None:
                self._failure = UpstreamFailed("the stream ended before it began", self._call.source)
                return False
            self.done = True
            self._response.expect_end(_END_PATIENCE_S)
            return True
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            self.skipped += 1
            return False
        self._failure = failure_in(payload, self._call)
        if self._failure is not None or not isinstance(payload, dict):
            return False
        if self.ttft_ms is None:
            self.ttft_ms = _ms_since(self._started)
            self._response.first_byte_seen()
        self.reader.chunk(payload)
        return not (self._hide_usage and payload.get("usage") and not payload.get("choices"))

    def _rest(self) -> bytes:
        """What stands after the last blank line when the backend has ended: an event without one, or a bare error."""
        event = self._decoder.finish()
        if event is None:
            return b""
        if event.data is None:
            self._failure = failure_in(_parsed(event.raw), self._call)
            return b""
        return event.raw.rstrip(b"\r\n") + b"\n\n" if self._observe(event) else b""


Answer = PlainAnswer | StreamAnswer


class Forwarder:
    """Phrases and sends the call for an answer."""

    def __init__(
        self,
        client: UpstreamClient,
        registry: Registry,
        load: PrimaryLoad,
        *,
        primary_max_tokens: MaxTokensPolicy,
        request_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._registry = registry
        self._load = load
        self._primary_max_tokens = primary_max_tokens
        self._request_timeout_s = request_timeout_s
        self._clock = clock

    def forward_request(self, request: ChatRequest, candidate: Candidate, messages_json: bytes, leg: Leg) -> Answer:
        """Ask ``candidate``. Raises UpstreamError, or what ``leg`` was aborted for."""
        started = self._clock()
        call = self._call(request, candidate, messages_json, leg.number)
        with ExitStack() as held:
            if candidate.backend is self._registry.primary:
                held.enter_context(self._load.counted())
            response = self._client.open(call, leg)
            try:
                _raise_for_status(response, call)
                if not request.stream:
                    return self._plain(response, call, started, request)
                answer = self._stream(response, call, started, request)
            except BaseException:  # whatever it is, it goes on; the response must not stay open behind it
                response.close()
                raise
            answer.until_closed(held.pop_all())
            return answer

    def _stream(self, response: UpstreamResponse, call: Call, started: float, request: ChatRequest) -> StreamAnswer:
        if response.headers.get("content-type", "").startswith("application/json"):
            body = response.read(_MAX_COMPLAINT)
            raise failure_in(_parsed(body), call) or UpstreamFailed(
                "a plain answer where a stream was due", call.source
            )
        answer = StreamAnswer(
            response, call, started=started, arrived_at=request.arrived_at, hide_usage=not request.wants_usage
        )
        answer.prime()
        return answer

    def _plain(self, response: UpstreamResponse, call: Call, started: float, request: ChatRequest) -> PlainAnswer:
        body = response.read(_MAX_ANSWER)
        response.close()
        payload = _parsed(body)
        if failure := failure_in(payload, call):
            raise failure
        if not isinstance(payload, dict) or not isinstance(payload.get("choices"), list):
            raise UpstreamFailed("the answer is not a chat completion", call.source)
        reader = AnswerReader()
        message = reader.whole(payload)
        attempt = Attempt(
            backend=call.source.backend,
            model=call.source.model,
            started_ms=(started - request.arrived_at) * 1000,
            duration_ms=_ms_since(started),
            stream=False,
            status=response.status,
            connect_ms=response.connect_ms,
            finish_reason=reader.finish_reason,
        )
        return PlainAnswer(body, message, reader.usage, attempt)

    def _call(self, request: ChatRequest, candidate: Candidate, messages_json: bytes, number: int) -> Call:
        backend = candidate.backend
        left_s = request.arrived_at + self._request_timeout_s - self._clock()
        policy = self._primary_max_tokens if backend is self._registry.primary else MaxTokensPolicy("pass")
        return Call(
            source=backend.source._replace(model=candidate.model),
            method="POST",
            url=f"{backend.base_url}/v1/chat/completions",
            timeouts=self._registry.timeouts(backend, stream=request.stream, total_s=max(left_s, 0.001)),
            secret=backend.key,
            headers={**backend.headers, "X-Request-Id": leg_id(request.request_id, number)},
            body=chat_body(request, model=candidate.model, messages_json=messages_json, max_tokens=policy),
        )


def leg_id(request_id: str, number: int) -> str:
    """The id for a backend: the request's own, numbered from the second leg on. vLLM takes it for its own id, and a
    speculative call of the same one may not have ended yet."""
    return request_id if number == 1 else f"{request_id}-{number}"


def _raise_for_status(response: UpstreamResponse, call: Call) -> None:
    if response.status != 200:
        raise refusal(response.status, response.headers, response.read(_MAX_COMPLAINT), call)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
