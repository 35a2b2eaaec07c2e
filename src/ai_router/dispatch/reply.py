"""The reply to a client: the answer's bytes on their way, and what the request record is told when it is over."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from ai_router.dispatch.answer import Answer, PlainAnswer, StreamAnswer
from ai_router.dispatch.dispatcher import WaitDriver
from ai_router.dispatch.record import RequestRecord
from ai_router.errors import INTERNAL, Aborted, InternalError, RequestCancelled, RouterError, error_event
from ai_router.http.client import READ_SIZE
from ai_router.observability import log_lines
from ai_router.providers.chat_completions import estimated_usage

log = logging.getLogger(__name__)


class EventStream(Protocol):
    """Events for one client, as a server sends them.

    ``opening`` may wait and belongs to the request's thread. After it the stream is either ``over``, or goes on with
    what the socket of ``detach`` gives, on whatever thread reads that.
    """

    over: bool
    """Whether nothing more is to come."""

    def opening(self) -> Iterator[bytes]:
        """What goes out first. Never raises an error of ours: a failure becomes the last event."""

    @property
    def done(self) -> bool:
        """Whether the answer has ended and only its connection has not; comments would be out of place."""

    def detach(self, on_release: Callable[[], object]) -> socket.socket | None:
        """The socket to read for ``feed``, non-blocking; ``on_release`` is called before it is closed or reused.

        None for events that are made in this process: ``attach`` says where they go.
        """

    def attach(self, send: Callable[[bytes], object], finish: Callable[[], object], /) -> None:
        """Give every event to ``send`` from now on, and call ``finish`` behind the last; both from any thread."""

    def feed(self, data: bytes | None) -> bytes:
        """What the client gets of what the socket gave: b"" is its end, None an error of it. Then see ``over``."""

    def pause(self) -> None:
        """The client takes nothing just now, so that nothing is read."""

    def resume(self) -> None:
        """Reading goes on."""

    def close(self) -> None:
        """The response has closed, however it did; any number of times."""


class PlainReply:
    """A whole answer in one piece; ``body`` is the backend's bytes."""

    def __init__(self, record: RequestRecord, answer: PlainAnswer) -> None:
        self.body = answer.body
        record.attempt(answer.attempt())
        usage = answer.usage or estimated_usage(record.request.total_chars, answer.message)
        record.answer(answer.message, usage)
        record.complete()


class StreamReply:
    """A streamed answer: an EventStream. A failure half-way becomes an error event, and never a clean end.

    Either the answer is here, or ``driver`` still waits for it; then ``opening`` says in comments what is waited for.
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
        """A little sooner than the server's own comment, which then has nothing to add."""
        self._closed = False
        self.over = False

    def opening(self) -> Iterator[bytes]:
        try:
            if self._driver is not None:
                yield from self._wait_for_answer(self._driver)
            answer = self._begun_answer
            self._record.measure("ttft_ms", self._record.ms())
            if relayed := answer.start():
                yield relayed
            if answer.over and (last := self._end(answer.problem)):
                yield last
        except RouterError as error:
            if last := self._end(error):
                yield last
        except Exception:  # the response has begun: Flask can render no error page any more
            log.exception("a stream broke off for a reason of our own")
            yield self._end(InternalError(INTERNAL))

    def body(self) -> Iterator[bytes]:
        """All of it, for a server that gives each stream a thread."""
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

    def detach(self, on_release: Callable[[], object]) -> socket.socket:
        return self._begun_answer.response.detach(on_release)

    def attach(self, _send: Callable[[bytes], object], _finish: Callable[[], object]) -> None:
        raise TypeError("these events come from a socket")

    def feed(self, data: bytes | None) -> bytes:
        answer = self._begun_answer
        try:
            relayed = answer.feed(data)
        except Exception:  # as in ``opening``
            log.exception("a stream broke off for a reason of our own")
            return self._end(InternalError(INTERNAL))
        return relayed + self._end(answer.problem) if answer.over else relayed

    def pause(self) -> None:
        self._begun_answer.response.pause()

    def resume(self) -> None:
        self._begun_answer.response.resume()

    def close(self) -> None:
        """Record what came, and release the backend's connection. What is still waited for is given up."""
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
            raise RuntimeError("the stream has no answer yet: run its opening first")
        return self._answer

    def _wait_for_answer(self, driver: WaitDriver[Answer]) -> Iterator[bytes]:
        """Comments, until the answer is here. Raises what the request ends with instead."""
        reason_in_headers = self._record.reason
        yield comment(driver.notice())
        while not driver.run_for(self._notice_every_s):
            yield comment(driver.notice())
        answer = driver.result
        if not isinstance(answer, StreamAnswer):
            raise TypeError("a stream was asked for")
        self._answer = answer
        if self._record.reason != reason_in_headers:
            yield comment(self._record.reason)

    def _end(self, problem: RouterError | None) -> bytes:
        """Nothing more is to come: record why; the last event for the client, b"" where nobody would read one."""
        self.over = True
        if problem is None:
            self._record.complete()
        else:
            self._record.fail(problem)
        if self._answer is not None and self._answer.problem is None:
            self._answer.problem = problem
        self.close()
        client_left = isinstance(problem, Aborted) and not isinstance(problem, RequestCancelled)
        return b"" if problem is None or client_left else error_event(problem)

    def _record_answer(self, answer: StreamAnswer) -> None:
        answer.close()
        record = self._record
        record.events_skipped += answer.skipped
        if answer.skipped:
            log_lines.events_skipped(answer.attempt().backend, answer.skipped)
        if answer.done and answer.problem is None:
            # A client that has read [DONE] may close before we do; it lacks nothing.
            record.complete()
        record.attempt(answer.attempt(answer.problem))
        message, usage = answer.reader.gathered(), answer.reader.usage
        record.answer(message, usage or estimated_usage(record.request.total_chars, message))


Reply = PlainReply | StreamReply


def comment(text: str) -> bytes:
    """An SSE comment, which clients pass over."""
    return f": {' '.join(text.split())}\n\n".encode()


def _receive(sock: socket.socket) -> bytes | None:
    """Wait for what a blocking socket gives: b"" is its end, None an error of it."""
    try:
        return sock.recv(READ_SIZE)
    except OSError:
        return None
