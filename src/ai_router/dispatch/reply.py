"""Replies: an answer on its way to the client, byte for byte, and the notes taken when it is over."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from ai_router.dispatch.answer import estimated_usage
from ai_router.dispatch.answers import Answer, PlainAnswer, StreamAnswer
from ai_router.dispatch.record import RequestRecord
from ai_router.dispatch.waits import WaitDriver
from ai_router.errors import (
    INTERNAL,
    Aborted,
    InternalError,
    RequestCancelled,
    RouterError,
    error_event,
)
from ai_router.observability import log_lines

log = logging.getLogger(__name__)


class Reply(Protocol):
    """What the edge sends. ``close`` when the response has closed, however it did; any number of times."""

    def body(self) -> bytes | Iterator[bytes]:
        """All of it, or its portions; to be taken once."""

    def flow(self) -> StreamReply | None:
        """Itself, once nothing but a backend's bytes is waited for: whoever has taken a portion of the body then may
        leave the rest of it, and push instead."""

    def close(self) -> None:
        """Take the last notes and give up what is still open."""


class PlainReply:
    """A whole answer."""

    def __init__(self, record: RequestRecord, answer: PlainAnswer) -> None:
        self._answer = answer
        record.attempt(answer.attempt())
        usage = answer.usage or estimated_usage(record.request.total_chars, answer.message)
        record.answer(answer.message, usage)
        record.complete()

    def body(self) -> bytes:
        """The backend's bytes."""
        return self._answer.body

    def flow(self) -> StreamReply | None:
        """Nothing is waited for."""
        return None

    def close(self) -> None:
        """Nothing is open."""


class StreamReply:
    """A stream that has begun."""

    def __init__(self, record: RequestRecord, answer: StreamAnswer) -> None:
        self._record = record
        self._answer = answer
        self._error: RouterError | None = None
        self._closed = False
        self._begun = False
        self.over = False
        """Whether all has been pushed."""

    def body(self) -> Iterator[bytes]:
        """The backend's events; a failure half-way becomes an error event, and no clean end."""
        return guarded(self._record, self.relayed())

    def flow(self) -> StreamReply | None:
        """Itself, once the client has what was there at first, and while there is more to come."""
        answer = self._answer
        waits = self._begun and not (answer.primed or answer.failure or answer.response.complete)
        return self if waits else None

    def wait_elsewhere(self, let_go: Callable[[], object]) -> socket.socket:
        """The socket whose bytes are to be pushed from now on, until ``let_go`` is called."""
        return self._answer.response.wait_elsewhere(let_go)

    def push(self, data: bytes | None) -> bytes:
        """What the client gets of ``data``, which the backend's socket gave: b"" is its end, None a break. Then see
        ``over``."""
        answer, response = self._answer, self._answer.response
        relayed = b""
        problem: RouterError | None
        try:
            if portion := response.received(data):
                relayed = answer.take(portion)
            if answer.failure is not None:
                problem = answer.broken(answer.failure)
            elif not response.complete:
                return relayed
            else:
                last, problem = answer.ended()
                relayed += last
        except RouterError as broke:
            problem = answer.broken(broke)
        except Exception:  # as in ``guarded``
            log.exception("a stream broke off for a reason of our own")
            problem = InternalError(INTERNAL)
        return relayed + self._finish(problem)

    def pause(self) -> None:
        """The client takes nothing just now, so that nothing is read."""
        self._answer.response.pause()

    def go_on(self) -> None:
        """Reading goes on."""
        self._answer.response.go_on()

    @property
    def done(self) -> bool:
        """Whether the answer has ended, and only its connection has not."""
        return self._answer.done

    def _finish(self, problem: RouterError | None) -> bytes:
        """There is no more; the client's last words."""
        self.over, self._error = True, problem
        if problem is None:
            self._record.complete()
        self.close()
        return b"" if problem is None else parting(self._record, problem)

    def relayed(self) -> Iterator[bytes]:
        """The backend's events. Raises RouterError."""
        self._record.measure("ttft_ms", self._record.ms())
        self._begun = True
        try:
            yield from self._answer.chunks()
            self._record.complete()
        except RouterError as error:
            self._error = error
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Note what came, and give the connection back, or up."""
        if self._closed:
            return
        self._closed = True
        self._answer.close()
        self._record.events_skipped += self._answer.skipped
        if self._answer.skipped:
            log_lines.events_skipped(self._answer.attempt().backend, self._answer.skipped)
        if self._answer.done and self._error is None:
            # A client that has read [DONE] may close before we do; it lacks nothing.
            self._record.complete()
        self._record.attempt(self._answer.attempt(self._error))
        message, usage = self._answer.reader.gathered(), self._answer.reader.usage
        self._record.answer(message, usage or estimated_usage(self._record.request.total_chars, message))


class HeldReply:
    """A stream whose answer is still to be had: comments that say what is waited for, and then the answer."""

    def __init__(self, record: RequestRecord, driver: WaitDriver[Answer], *, keepalive_s: float) -> None:
        self._record = record
        self._driver = driver
        self._keepalive_s = keepalive_s
        self._reason_in_headers = record.reason
        self._reply: StreamReply | None = None

    def body(self) -> Iterator[bytes]:
        """Comments, then the answer."""
        return guarded(self._record, self._held())

    def flow(self) -> StreamReply | None:
        """The answer, once there is one."""
        return None if self._reply is None else self._reply.flow()

    def close(self) -> None:
        """Give up what is waited for; the answer closes with its iterator."""
        self._driver.close()

    def _held(self) -> Iterator[bytes]:
        yield _comment(self._driver.notice())
        # A little sooner than the edge's own comment, which then has nothing to add.
        while not self._driver.run_for(0.9 * self._keepalive_s):
            yield _comment(self._driver.notice())
        answer = self._driver.result
        if not isinstance(answer, StreamAnswer):
            raise TypeError("a stream was asked for")
        reply = self._reply = StreamReply(self._record, answer)
        try:
            if (happened := self._record.reason) != self._reason_in_headers:
                yield _comment(happened)
            yield from reply.relayed()
        finally:
            reply.close()


def _comment(text: str) -> bytes:
    return f": {' '.join(text.split())}\n\n".encode()


def guarded(record: RequestRecord, portions: Iterator[bytes]) -> Iterator[bytes]:
    """The portions; what breaks them off is noted and told as an error event, unless nobody is there to read it."""
    try:
        yield from portions
    except RouterError as error:
        if words := parting(record, error):
            yield words
    except Exception:  # the edge of a response that has begun: Flask can render no error page any more
        log.exception("a stream broke off for a reason of our own")
        yield parting(record, InternalError(INTERNAL))


def parting(record: RequestRecord, error: RouterError) -> bytes:
    """Note what a stream broke off for; the event that says so, b"" where nobody would read it."""
    record.fail(error)
    gone = isinstance(error, Aborted) and not isinstance(error, RequestCancelled)
    return b"" if gone else error_event(error)
