"""The answer of a backend: a whole one, or a stream that has begun; what it says is noted while it is relayed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import orjson

from ai_router.dispatch.beginning import Beginning, logprobs_in_events
from ai_router.dispatch.client_form import DONE, Rewriting
from ai_router.dispatch.plain_answer import PlainAnswer, ms_since, parsed
from ai_router.errors import RouterError, UpstreamBroken, UpstreamError, UpstreamFailed
from ai_router.http.calls import UpstreamRequest
from ai_router.http.client import UpstreamResponse
from ai_router.http.sse import Event, EventTooLong, SSEDecoder
from ai_router.providers.chat_completions import AnswerReader
from ai_router.providers.errors import error_in_body
from ai_router.resilience.limiter import Permit
from ai_router.resilience.retry import record_result
from ai_router.types import Attempt

_END_TIMEOUT_S = 1.0
"""How long a backend may take to end its response after [DONE]."""
_ERROR_EVENT = re.compile(rb"^event:[ \t]*error[ \t]*$", re.M)
_MAX_QUOTED = 2_000


class StreamAnswer:
    """A streamed answer: turns the bytes of a backend's socket into the bytes for the client.

    ``prime`` waits for the first event, ``start`` returns what has come until then, and ``feed`` takes further bytes of
    the socket. After ``start`` and ``feed``, ``over`` says whether the stream has ended, and ``problem`` why it is
    incomplete. Close it in any case.

    ``started`` and ``arrived_at`` (of the call and of the request), and ``deadline`` (of the request) are monotonic
    seconds. ``hide_usage``: leave out the chunk with the usage, which the client did not ask for. ``rewriting``: if the
    backend or the client speaks another API than chat completions; None: relay the bytes unchanged.
    """

    def __init__(
        self,
        response: UpstreamResponse,
        upstream_request: UpstreamRequest,
        permit: Permit,
        *,
        started: float,
        arrived_at: float,
        hide_usage: bool,
        rewriting: Rewriting | None,
        deadline: float,
        call_number: int,
    ) -> None:
        self.reader = AnswerReader()
        self.status = response.status
        self.connect_ms = response.connect_ms
        self.ttft_ms: float | None = None
        self.done = False
        """Whether the backend's [DONE] has come."""
        self.over = False
        """Whether the stream has ended."""
        self.problem: RouterError | None = None
        """Why the answer is incomplete, once the stream is over; None: it is complete."""
        self.unread = 0
        """How many events were no strict JSON; they are relayed all the same."""
        self.warnings: Sequence[str] = ()
        """What became of the client's fields."""
        self.response = response
        self._upstream_request = upstream_request
        self._started = started
        self._arrived_at = arrived_at
        self._rewriting = rewriting
        self.writer = None if rewriting is None else rewriting.writer
        """What writes the answer in the client's API; None: that is chat completions."""
        self._hide_usage = hide_usage and self.writer is None
        self._permit = permit
        self._deadline = deadline
        self._call_number = call_number
        self._decoder = SSEDecoder()
        self._failure: UpstreamError | None = None
        """An error in the stream. It comes after everything that ``_relay`` has returned."""
        self._primed = b""
        self._closing = ExitStack()
        self._closing.callback(permit.release)
        self._closing.callback(response.close)

    def prime(self, portion: bytes | None = None) -> None:
        """Wait for the first event with a choice in it. Raises UpstreamError if an error or the end comes instead.

        ``portion`` has been read of the response already.
        """
        while self.ttft_ms is None:
            portion = self.response.read_portion() if portion is None else portion
            self._primed += self._relay(portion) if portion else self._finish_decoding()
            if self._failure is not None:
                raise self._failure
            if not portion and self.ttft_ms is None:
                raise UpstreamFailed("the stream ended before it began", self._upstream_request.source)
            portion = None

    def catch_up(self, chars: int) -> Beginning:
        """What has come of the answer until now, without waiting for more. No more is read once that is so long.

        Raises UpstreamError, or the reason for which the call was aborted; then there is no answer.
        """
        try:
            # What comes behind the end is for ``feed``, which knows what of that does not matter.
            while len(self._said()) < chars and self._failure is None and not self.done:
                if (portion := self.response.read_arrived()) is None:
                    break
                self._primed += self._relay(portion) if portion else b""
            if self._failure is not None:
                raise self._failure
        except UpstreamError as problem:
            if time.monotonic() < self._deadline:
                record_result(self._permit, problem)
            raise
        return Beginning(self._said(), logprobs_in_events(self._primed))

    def _said(self) -> str:
        content = (self.reader.gathered() or {}).get("content")
        return content if isinstance(content, str) else ""

    def start(self) -> bytes:
        """The bytes for the client that have come until now. From now on the call counts as a stream."""
        self._permit.stream_begun()
        primed, self._primed = self._primed, b""
        return primed + self._end_complete() if self.response.complete else primed

    def feed(self, data: bytes | None) -> bytes:
        """The bytes for the client, whole events, from ``data`` of the socket (b"": it ended, None: it failed)."""
        try:
            portion = self.response.feed(data)
        except RouterError as problem:
            self._end(self._problem_if_incomplete(problem))
            return b""
        relayed = self._relay(portion) if portion else b""
        if self._failure is not None:
            self._end(self._problem_if_incomplete(self._failure))
            return relayed
        return relayed + self._end_complete() if self.response.complete else relayed

    def _end_complete(self) -> bytes:
        """The body is complete: end the stream. Returns the last bytes for the client."""
        last = self._finish_decoding()
        if self.done or self.reader.finished:
            self._end(None)
            last += b"" if self.done else self._answer_end()
        else:
            self._permit.failed()
            broken = UpstreamBroken("the stream ended before the answer did", self._upstream_request.source)
            self._end(self._failure or broken)
        return last

    def _answer_end(self) -> bytes:
        return DONE if self._rewriting is None else self._rewriting.end()

    def _end(self, problem: RouterError | None) -> None:
        self.over, self.problem = True, problem

    def _problem_if_incomplete(self, problem: RouterError) -> RouterError | None:
        """``problem``, which ended the stream; None if it came after [DONE], since the answer is complete then."""
        if self.done:
            return None
        if isinstance(problem, UpstreamError) and time.monotonic() < self._deadline:
            self._permit.failed()
        return problem

    def _relay(self, portion: bytes) -> bytes:
        """The bytes for the client from a portion of the body. Sets ``_failure`` if an error follows them."""
        if (data := self._decoder.only_event(portion)) is not None and self._rewriting is None:
            return self._relayed(portion, data)
        try:
            events = self._decoder.feed(portion)
        except EventTooLong as problem:
            self._failure = UpstreamBroken(str(problem), self._upstream_request.source)
            return b""
        return self._relay_events(events)

    def close(self) -> None:
        """Close the response and release the permit. Idempotent."""
        self._closing.close()

    def attempt(self) -> Attempt:
        """The call until now."""
        return Attempt(
            backend=self._upstream_request.source.backend,
            model=self._upstream_request.source.model,
            started_ms=(self._started - self._arrived_at) * 1000,
            duration_ms=ms_since(self._started),
            stream=True,
            status=self.status,
            connect_ms=self.connect_ms,
            ttft_ms=self.ttft_ms,
            finish_reason=self.reader.finish_reason,
            call_number=self._call_number,
        )

    def _relay_events(self, events: list[Event]) -> bytes:
        if self._rewriting is not None:
            return self._relay_rewritten(events, self._rewriting)
        relayed = []
        for event in events:
            relayed.append(self._relayed_event(event))
            if self._failure is not None:
                break
        return relayed[0] if len(relayed) == 1 else b"".join(relayed)

    def _relayed_event(self, event: Event) -> bytes:
        """Note what an event says. Returns the bytes for the client."""
        data = event.data
        if data is None:
            return event.raw
        told = data.strip()
        if told == b"[DONE]":
            return self._relayed_done()
        if not told:
            # Without data there is no event; some clients would try to read it all the same.
            return b""
        if b"event:" in event.raw and _ERROR_EVENT.search(event.raw):
            source = self._upstream_request.source
            failure = error_in_body(parsed(data), self._upstream_request)
            self._failure = failure or UpstreamFailed(
                _quoted(data), source, own_words="an error of unknown shape inside its answer"
            )
            return b""
        return self._relayed(event.raw, data)

    def _relayed_done(self) -> bytes:
        if self.ttft_ms is None:
            self._failure = UpstreamFailed("the stream ended before it began", self._upstream_request.source)
            return b""
        self.done = True
        self.response.expect_end(_END_TIMEOUT_S)
        return self._answer_end()

    def _relayed(self, raw: bytes, data: bytes) -> bytes:
        """Note what an event with JSON says. Returns the bytes for the client: as they came, where that is possible."""
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            # The client reads it, or not: that is not ours to say.
            self.unread += 1
            payload = read_leniently(data)
            if payload is None:
                return raw
        if not self._observe_chunk(payload):
            return b""
        if self.reader.renumbered:
            self.reader.renumbered = False
            return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"
        return raw

    def _observe_chunk(self, payload: Any) -> bool:
        """Note what a parsed chunk says. Returns whether to relay it."""
        if not isinstance(payload, dict) or "error" in payload or "choices" not in payload:
            self._failure = error_in_body(payload, self._upstream_request)
            if self._failure is not None or not isinstance(payload, dict):
                return False
        reader = self.reader
        reader.chunk(payload)
        if reader.error is not None:
            self._failure = error_in_body({"error": reader.error}, self._upstream_request)
            return False
        if self.ttft_ms is None and reader.has_choice:
            self.ttft_ms = ms_since(self._started)
            self.response.first_byte_seen()
            self._permit.succeeded()
        return not (self._hide_usage and payload.get("usage") and not payload.get("choices"))

    def _relay_rewritten(self, events: list[Event], rewriting: Rewriting) -> bytes:
        """The bytes for the client from events that it does not get, or not only, as chunks of chat completions."""
        relayed = []
        for event in events:
            told = None if event.data is None else event.data.strip()
            payload = parsed(told) or read_leniently(told) if told and told != b"[DONE]" else None
            if told and told != b"[DONE]" and payload is None:
                self.unread += 1
            for chunk in rewriting.chunks(payload) if isinstance(payload, dict) else ():
                if self._observe_chunk(chunk):
                    relayed.append(rewriting.written(chunk))
                if self._failure is not None:
                    return b"".join(relayed)
            relayed.append(rewriting.passed_on(event.raw, payload))
            if not self.done and (rewriting.ended or (rewriting.ends_with_done and told == b"[DONE]")):
                last = self._relayed_done()
                # The backend's own end has been passed on.
                relayed.append(b"" if rewriting.passes_on else last)
        return b"".join(relayed)

    def _finish_decoding(self) -> bytes:
        """The body has ended: the bytes for the client from what came after the last blank line, if anything did."""
        event = self._decoder.finish()
        if event is None:
            return b""
        if event.data is None:
            self._failure = error_in_body(parsed(event.raw), self._upstream_request)
            return b""
        if self._rewriting is not None:
            return self._relay_rewritten([event], self._rewriting)
        unread = self.unread
        last = self._relayed_event(event)
        # What cannot be read was cut off: half an event is none.
        return last.rstrip(b"\r\n") + b"\n\n" if last and self.unread == unread else b""


Answer = PlainAnswer | StreamAnswer


def read_leniently(data: bytes) -> dict[str, Any] | None:
    """An object of JSON as Python reads it: with NaN and Infinity, with half a surrogate pair, with bytes that are no
    UTF-8. For our own notes. None if it is none even so."""
    try:
        payload = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _quoted(data: bytes) -> str:
    return data[:_MAX_QUOTED].decode("utf-8", "replace").strip() or "an error without an explanation"
