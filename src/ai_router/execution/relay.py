"""Replies: an answer on its way to the client, byte for byte, and the notes taken when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from ai_router.errors import INTERNAL, Aborted, InternalError, RequestCancelled, RouterError, error_event
from ai_router.execution.answer import estimated_usage
from ai_router.execution.answers import Answer, PlainAnswer, StreamAnswer
from ai_router.execution.trail import Trail
from ai_router.execution.waiting import Course
from ai_router.telemetry import timing_log

log = logging.getLogger(__name__)


class Reply(Protocol):
    """What the edge sends. ``close`` when the response has closed, however it did; any number of times."""

    def body(self) -> bytes | Iterator[bytes]:
        """All of it, or its portions; to be taken once."""

    def close(self) -> None:
        """Take the last notes and give up what is still open."""


class PlainReply:
    """A whole answer."""

    def __init__(self, trail: Trail, answer: PlainAnswer) -> None:
        self._answer = answer
        trail.attempt(answer.attempt())
        usage = answer.usage or estimated_usage(trail.request.total_chars, answer.message)
        trail.answer(answer.message, usage)
        trail.complete()

    def body(self) -> bytes:
        """The backend's bytes."""
        return self._answer.body

    def close(self) -> None:
        """Nothing is open."""


class StreamReply:
    """A stream that has begun."""

    def __init__(self, trail: Trail, answer: StreamAnswer) -> None:
        self._trail = trail
        self._answer = answer
        self._error: RouterError | None = None
        self._closed = False

    def body(self) -> Iterator[bytes]:
        """The backend's events; a failure half-way becomes an error event, and no clean end."""
        return guarded(self._trail, self.relayed())

    def relayed(self) -> Iterator[bytes]:
        """The backend's events. Raises RouterError."""
        self._trail.measure("ttft_ms", self._trail.ms())
        try:
            yield from self._answer.chunks()
            self._trail.complete()
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
        self._trail.events_skipped += self._answer.skipped
        if self._answer.skipped:
            timing_log.events_skipped(self._answer.attempt().backend, self._answer.skipped)
        if self._answer.done and self._error is None:
            # A client that has read [DONE] may close before we do; it lacks nothing.
            self._trail.complete()
        self._trail.attempt(self._answer.attempt(self._error))
        message, usage = self._answer.reader.gathered(), self._answer.reader.usage
        self._trail.answer(message, usage or estimated_usage(self._trail.request.total_chars, message))


class HeldReply:
    """A stream whose answer is still to be had: comments that say what is waited for, and then the answer."""

    def __init__(self, trail: Trail, course: Course[Answer], *, keepalive_s: float) -> None:
        self._trail = trail
        self._course = course
        self._keepalive_s = keepalive_s
        self._reason_in_headers = trail.reason

    def body(self) -> Iterator[bytes]:
        """Comments, then the answer."""
        return guarded(self._trail, self._held())

    def close(self) -> None:
        """Give up what is waited for; the answer closes with its iterator."""
        self._course.close()

    def _held(self) -> Iterator[bytes]:
        yield _comment(self._course.notice())
        # A little sooner than the edge's own comment, which then has nothing to add.
        while not self._course.go_on(0.9 * self._keepalive_s):
            yield _comment(self._course.notice())
        answer = self._course.result
        if not isinstance(answer, StreamAnswer):
            raise TypeError("a stream was asked for")
        reply = StreamReply(self._trail, answer)
        try:
            if (happened := self._trail.reason) != self._reason_in_headers:
                yield _comment(happened)
            yield from reply.relayed()
        finally:
            reply.close()


def _comment(text: str) -> bytes:
    return f": {' '.join(text.split())}\n\n".encode()


def guarded(trail: Trail, portions: Iterator[bytes]) -> Iterator[bytes]:
    """The portions; what breaks them off is noted and told as an error event, unless nobody is there to read it."""
    try:
        yield from portions
    except RequestCancelled as cancelled:
        trail.fail(cancelled)
        yield error_event(cancelled)
    except Aborted as gone:
        trail.fail(gone)
    except RouterError as error:
        trail.fail(error)
        yield error_event(error)
    except Exception:  # the edge of a response that has begun: Flask can render no error page any more
        log.exception("a stream broke off for a reason of our own")
        defect = InternalError(INTERNAL)
        trail.fail(defect)
        yield error_event(defect)
