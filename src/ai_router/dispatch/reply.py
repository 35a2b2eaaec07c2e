"""The reply to a client: the bytes of the answer, and what is recorded when it has ended."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ai_router.apis import AnswerWriter
from ai_router.dispatch.answer import Answer, StreamAnswer
from ai_router.dispatch.citations import cited, cited_first, sources_of
from ai_router.dispatch.dispatcher import WaitDriver
from ai_router.dispatch.explain import explained, explained_first
from ai_router.dispatch.plain_answer import PlainAnswer
from ai_router.dispatch.record import RequestRecord
from ai_router.envelope import error_event
from ai_router.errors import INTERNAL, Aborted, InternalError, RequestCancelled, RouterError
from ai_router.http.client import READ_SIZE
from ai_router.observability import log_lines
from ai_router.providers.chat_completions import estimated_usage

log = logging.getLogger(__name__)

_SEARCHED = "enrichment_ms"
"""Has a time where the web was searched."""
_NOT_BEGUN = "the stream has no answer yet: run its opening first"


class EventStream(Protocol):
    """A stream of events for one client; what server/stream_relay.py needs of it.

    ``opening`` may block and runs on the request's thread. After it the stream is ``over``, or it goes on: either bytes
    of the socket of ``detach`` are passed to ``feed``, or events come by ``attach``.
    """

    over: bool
    """Whether the stream has ended."""

    @property
    def keepalive(self) -> bytes:
        """What is sent into silence."""

    def opening(self) -> Iterator[bytes]:
        """The first bytes. It raises no RouterError: a failure becomes the last event."""

    @property
    def done(self) -> bool:
        """Whether the answer has ended, but not the backend's connection: no more comments then."""

    def detach(self, on_release: Callable[[], object]) -> socket.socket | None:
        """The socket to read for ``feed``, non-blocking. ``on_release`` is called before it is closed or reused.

        None for events that are made in this process: use ``attach`` then.
        """

    def attach(self, send: Callable[[bytes], object], finish: Callable[[], object], /) -> None:
        """From now on give each event to ``send``, and call ``finish`` after the last; both from any thread."""

    def feed(self, data: bytes | None) -> bytes:
        """The bytes for the client from ``data`` of the socket (b"": ended, None: failed). Check ``over`` then."""

    def pause(self) -> None:
        """The client reads too slowly: the socket is not read until ``resume``."""

    def resume(self) -> None:
        """The socket is read again."""

    def close(self) -> None:
        """The response has closed. Idempotent."""


class PlainReply:
    """A whole answer; ``body`` is what the client gets: the backend's bytes, or their translation."""

    def __init__(self, record: RequestRecord, answer: PlainAnswer) -> None:
        self.body = answer.body
        record.client_answer = answer.client_answer
        record.add_attempt(answer.attempt())
        usage = answer.usage or estimated_usage(record.request.total_chars, answer.message)
        record.set_answer(answer.message, usage)
        record.complete()
        if _SEARCHED in record.timings and (sources := sources_of(record.steps)):
            self.body = cited(self.body, sources, is_chat=record.request.client_form is None)
        if record.request.explains:
            self.body = explained(self.body, record)


class StreamReply:
    """A streamed answer: an EventStream. A failure in the middle becomes an error event, never a clean end.

    Either ``answer`` has begun, or ``driver`` still waits for it; then ``opening`` sends comments that say why. Under a
    server without a stream relay, iterate over ``body``. ``keepalive_s``: how often the server sends a comment.
    """

    def __init__(
        self,
        record: RequestRecord,
        answer: StreamAnswer | None = None,
        driver: WaitDriver[Answer] | None = None,
        *,
        keepalive_s: float = float("inf"),
    ) -> None:
        self._record = record
        self._answer = answer
        self._driver = driver
        self._notice_every_s = 0.9 * keepalive_s
        """A little sooner than the server's own keep-alive comment, so that it sends none."""
        self._closed = False
        self._sources: Sequence[str] = ()
        """What the web search has found, once there is an answer."""
        self._completes_first = False
        """Whether something is to be added to the first event, which has yet to come."""
        self.over = False

    def opening(self) -> Iterator[bytes]:
        try:
            if self._driver is not None:
                yield from self._wait_for_answer(self._driver)
            answer = self._begun_answer
            self._record.measure("ttft_ms", self._record.ms())
            if _SEARCHED in self._record.timings:
                self._sources = sources_of(self._record.steps)
            self._completes_first = self._record.request.explains or bool(self._sources)
            if relayed := answer.start():
                yield self._completed(relayed) if self._completes_first else relayed
            if answer.over and (last := self._end(answer.problem)):
                yield last
        except RouterError as error:
            if last := self._end(error):
                yield last
        except Exception:  # the response has begun, so that Flask cannot render an error any more
            log.exception("a stream broke off for a reason of our own")
            yield self._end(InternalError(INTERNAL))

    def body(self) -> Iterator[bytes]:
        """The whole stream, for a server that gives each stream a thread."""
        yield from self.opening()
        if not self.over:
            sock = self.detach(lambda: None)
            sock.setblocking(True)
            while not self.over:
                if relayed := self.feed(_receive(sock)):
                    yield relayed

    @property
    def done(self) -> bool:
        return self._answer is not None and self._answer.done

    @property
    def keepalive(self) -> bytes:
        return KEEPALIVE if (writer := self._writer) is None else writer.comment("keep-alive")

    @property
    def _writer(self) -> AnswerWriter | None:
        """What writes in the client's API; None: that is chat completions."""
        form = self._record.request.client_form
        if self._answer is not None or form is None:
            return None if self._answer is None else self._answer.writer
        return form.api.writer(form)

    def _comment(self, text: str) -> bytes:
        return comment(text) if (writer := self._writer) is None else writer.comment(text)

    def detach(self, on_release: Callable[[], object]) -> socket.socket:
        return self._begun_answer.response.detach(on_release)

    def attach(self, _send: Callable[[bytes], object], _finish: Callable[[], object]) -> None:
        raise TypeError("these events come from a socket")

    def feed(self, data: bytes | None) -> bytes:
        # Not ``_begun_answer``: once for each chunk, a call less counts.
        answer = self._answer
        if answer is None:
            raise RuntimeError(_NOT_BEGUN)
        try:
            relayed = answer.feed(data)
        except Exception:  # as in ``opening``
            log.exception("a stream broke off for a reason of our own")
            return self._end(InternalError(INTERNAL))
        if self._completes_first:
            relayed = self._completed(relayed)
        return relayed + self._end(answer.problem) if answer.over else relayed

    def _completed(self, relayed: bytes) -> bytes:
        """The same, with what was found and what was decided in the first event, if that is in it."""
        request = self._record.request
        found: bytes | None = relayed
        if self._sources:
            found = cited_first(relayed, self._sources, is_chat=request.client_form is None)
        if found is not None and request.explains:
            found = explained_first(found, self._record)
        if found is None:
            return relayed
        self._completes_first = False
        return found

    def pause(self) -> None:
        self._begun_answer.response.pause()

    def resume(self) -> None:
        self._begun_answer.response.resume()

    def close(self) -> None:
        """Record what was sent, release the backend's connection, and stop waiting for an answer."""
        if self._closed:
            return
        self._closed = True
        if self._driver is not None:
            self._driver.close()
        if self._answer is not None:
            self._record_answer(self._answer)

    @property
    def _begun_answer(self) -> StreamAnswer:
        if self._answer is None:
            raise RuntimeError(_NOT_BEGUN)
        return self._answer

    def _wait_for_answer(self, driver: WaitDriver[Answer]) -> Iterator[bytes]:
        """Comments, until the answer has begun. Raises the error that the request ends with instead."""
        in_headers = (self._record.reason, self._record.warning)
        if notice := self._comment(driver.notice()):
            yield notice
        while not driver.run_for(self._notice_every_s):
            if notice := self._comment(driver.notice()):
                yield notice
        answer = driver.result
        if not isinstance(answer, StreamAnswer):
            raise TypeError("a stream was asked for")
        self._answer = answer
        for told, now in zip(in_headers, (self._record.reason, self._record.warning), strict=True):
            if now != told and (notice := self._comment(now)):
                yield notice

    def _end(self, problem: RouterError | None) -> bytes:
        """End the stream and record why. Returns the last event; b"" if there is none, or the client has left."""
        self.over = True
        if problem is None:
            self._record.complete()
        else:
            self._record.fail(problem)
        if self._answer is not None and self._answer.problem is None:
            self._answer.problem = problem
        writer = self._writer
        self.close()
        client_left = isinstance(problem, Aborted) and not isinstance(problem, RequestCancelled)
        if problem is None or client_left:
            return b""
        return error_event(problem) if writer is None else writer.error(problem)

    def _record_answer(self, answer: StreamAnswer) -> None:
        answer.close()
        record = self._record
        record.events_unread += answer.unread
        if answer.unread:
            log_lines.events_unread(answer.attempt().backend, answer.unread)
        if answer.done and answer.problem is None:
            # A client may close as soon as it has read [DONE]; it has the whole answer.
            record.complete()
        record.add_attempt(answer.attempt(), answer.problem)
        record.client_answer = None if answer.writer is None else answer.writer.whole
        message, usage = answer.reader.gathered(), answer.reader.usage
        record.set_answer(message, usage or estimated_usage(record.request.total_chars, message))


Reply = PlainReply | StreamReply


KEEPALIVE = b": keep-alive\n\n"


def comment(text: str) -> bytes:
    """An SSE comment, which clients ignore."""
    return f": {' '.join(text.split())}\n\n".encode()


def _receive(sock: socket.socket) -> bytes | None:
    """Wait for bytes of a blocking socket; b"": it has ended, None: it has failed."""
    try:
        return sock.recv(READ_SIZE)
    except OSError:
        return None
