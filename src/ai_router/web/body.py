"""Reading a request body that may be too large, too slow, or cut off."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from gunicorn.http.errors import ParseException

from ai_router.errors import BodyTooLarge, ClientGone, InvalidRequest, SlowBody
from ai_router.http.timers import Deadline, TimerThread

_PORTION = 1 << 20
"""Of a body whose length is known: gunicorn copies all that is left of it for each portion that is taken."""
_UNANNOUNCED = 65_536
"""Of one that may go on for ever."""


def read_body(environ: Mapping[str, Any], *, limit: int, timeout_s: float, timers: TimerThread) -> bytes:
    """The whole body, at most ``limit`` bytes, all of it within ``timeout_s``.

    Raises BodyTooLarge, SlowBody, InvalidRequest for one that ends early, ClientGone if the client did.
    """
    announced = _content_length(environ)
    if announced is not None and announced > limit:
        raise _too_large(limit)
    body_deadline = _BodyDeadline(environ.get("gunicorn.socket"), timeout_s, timers)
    try:
        body = _read(environ["wsgi.input"], limit, _UNANNOUNCED if announced is None else _PORTION)
    except (OSError, ParseException) as problem:
        body_deadline.raise_if_late()
        if isinstance(problem, ConnectionError):
            raise ClientGone from problem
        raise InvalidRequest(f"the request body could not be read: {problem}", "body") from problem
    finally:
        body_deadline.cancel()
    if announced is not None and len(body) < announced:
        body_deadline.raise_if_late()
        raise InvalidRequest(f"the request body has {len(body)} bytes, Content-Length says {announced}", "body")
    return body


def _content_length(environ: Mapping[str, Any]) -> int | None:
    # gunicorn has refused everything but digits; other servers leave it to us.
    value = environ.get("CONTENT_LENGTH") or ""
    return int(value) if value.isdigit() else None


def _read(stream: Any, limit: int, at_once: int) -> bytes:
    portions, size = [], 0
    while portion := stream.read(at_once):
        size += len(portion)
        if size > limit:
            raise _too_large(limit)
        portions.append(portion)
    return b"".join(portions)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit} bytes (MAX_BODY_MB)")


class _BodyDeadline:
    """Ends the reading half of the client's socket when time is up, which a blocked read notices and a drip cannot
    put off; the writing half stays, for the 408."""

    def __init__(self, sock: socket.socket | None, timeout_s: float, timers: TimerThread) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._late = False
        self._deadline: Deadline | None = timers.after(timeout_s, self._fire) if sock is not None else None

    def cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def raise_if_late(self) -> None:
        if self._late:
            raise SlowBody(f"the request body did not arrive within {self._timeout_s:g} s")

    def _fire(self) -> None:
        self._late = True
        if self._sock is not None:
            self._sock.shutdown(socket.SHUT_RD)
