"""Replies: an answer on its way to the client, byte for byte, and the notes taken when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Protocol

from ai_router.errors import INTERNAL, Aborted, InternalError, RouterError, error_event
from ai_router.execution.forward import PlainAnswer, StreamAnswer
from ai_router.execution.trail import Trail
from ai_router.telemetry import timing_log

log = logging.getLogger(__name__)

PATIENCE_BEFORE_HEADERS_S = 0.5
"""A search that ends sooner is told in the headers; after that they have to go, with the first keep-alive."""

_KEEP_ALIVE = b": searching the web\n\n"


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
        trail.answer(answer.message, answer.usage)
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
        self._error: str | None = None
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
            self._error = str(error)
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Note what came, and give the connection back, or up."""
        if self._closed:
            return
        self._closed = True
        self._answer.close()
        if self._answer.skipped:
            timing_log.events_skipped(self._answer.attempt().backend, self._answer.skipped)
        if self._answer.done and self._error is None:
            # A client that has read [DONE] may close before we do; it lacks nothing.
            self._trail.complete()
        self._trail.attempt(self._answer.attempt(self._error))
        self._trail.answer(self._answer.reader.gathered(), self._answer.reader.usage)


class SearchingReply:
    """A stream of comments while the web is searched, and then of whatever ``then`` makes of the result."""

    def __init__(
        self,
        trail: Trail,
        search: Future[str | None],
        then: Callable[[str | None], Reply],
        *,
        keepalive_s: float,
    ) -> None:
        self._trail = trail
        self._search = search
        self._then = then
        self._keepalive_s = keepalive_s
        self._reason_in_headers = trail.reason

    def or_sooner(self) -> Reply:
        """The reply itself if the search is over before the headers must go, so that they can tell how it went."""
        wait([self._search], PATIENCE_BEFORE_HEADERS_S)
        return self._then(self._search.result()) if self._search.done() else self

    def body(self) -> Iterator[bytes]:
        """Comments, then the answer."""
        return guarded(self._trail, self._searched())

    def close(self) -> None:
        """The search is a leg of the request's scope, which the edge aborts; the answer closes with its iterator."""

    def _searched(self) -> Iterator[bytes]:
        while not self._search.done():
            yield _KEEP_ALIVE
            wait([self._search], self._keepalive_s)
        reply = self._then(self._search.result())
        try:
            if (happened := self._trail.reason) != self._reason_in_headers:
                yield f": {' '.join(happened.split())}\n\n".encode()
            yield from reply.relayed() if isinstance(reply, StreamReply) else ()
        finally:
            reply.close()


def guarded(trail: Trail, portions: Iterator[bytes]) -> Iterator[bytes]:
    """The portions; what breaks them off is noted and told as an error event, unless nobody is there to read it."""
    try:
        yield from portions
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
