"""Calling a backend: send, watch the deadlines, read, and turn every foreign exception into one of ours.

``translate`` is the one border: above it nobody knows that requests or urllib3 exist.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from ai_router.errors import (
    AnswerSufficient,
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_router.upstream.alarms import Alarm, Alarms
from ai_router.upstream.call import Call
from ai_router.upstream.connections import CapturingAdapter, travelling
from ai_router.upstream.idle import IdleWatch
from ai_router.upstream.leg import Leg
from ai_router.upstream.traffic import Occupancy

log = logging.getLogger(__name__)

READ_SIZE = 65_536
_STALE_SHOWS_WITHIN_S = 0.1
_STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The alarms of one call."""

    first_byte: Alarm | None
    total: Alarm

    def first_byte_seen(self) -> None:
        """The first byte came in time."""
        if self.first_byte is not None:
            self.first_byte.cancel()

    def cancel(self) -> None:
        """The call is over."""
        self.first_byte_seen()
        self.total.cancel()


class UpstreamResponse:
    """An answer whose headers are here and whose body is still coming. Close it; closing early shuts the socket."""

    def __init__(
        self, raw: Any, call: Call, leg: Leg, *, deadlines: Deadlines, alarms: Alarms, connect_ms: float
    ) -> None:
        self._raw = raw
        self._call = call
        self._leg = leg
        self._alarms = alarms
        self._deadlines = deadlines
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.connect_ms = connect_ms

    def first_byte_seen(self) -> None:
        """Stop the first-byte deadline. The caller decides what counts: a keep-alive comment is no answer."""
        self._deadlines.first_byte_seen()

    def expect_end(self, seconds: float) -> None:
        """All that matters has been read: give the backend ``seconds`` to end the answer, so that the connection
        can be used again, and else leave. A read after that raises AnswerSufficient."""
        self._alarms.after(seconds, lambda: self._leg.abort(AnswerSufficient("the answer had ended")))

    def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamFailed if it is longer than ``limit`` bytes."""
        with _border(self._call, self._leg, answering=True):
            body: bytes = self._raw.read(limit + 1, decode_content=True)
        self._leg.received += len(body)
        self._leg.raise_if_aborted()
        if len(body) > limit:
            raise UpstreamFailed(f"the answer is longer than {limit} bytes", self._call.source)
        return body

    def chunks(self) -> Iterator[bytes]:
        """The body in the portions in which it arrives."""
        read1 = self._raw.read1
        # We ask for identity; a backend that compresses all the same costs urllib3's detour over a buffer.
        decode = "content-encoding" in self.headers
        leg = self._leg
        idle = IdleWatch(self._alarms, self._call.timeouts.longest_read, self._too_idle)
        # The border is set up once, not for each chunk; at the yield nothing but GeneratorExit can come in.
        try:
            with _border(self._call, leg, answering=True):
                leg.wait_without_timeout()
                idle.read_begins()
                while chunk := read1(READ_SIZE, decode_content=decode):
                    idle.read_ends()
                    leg.received += len(chunk)
                    yield chunk
                    idle.read_begins()
        finally:
            idle.close()
        # A body without length or chunks ends just like a socket that we shut.
        self._leg.raise_if_aborted()

    def _too_idle(self) -> None:
        seconds = self._call.timeouts.longest_read
        self._leg.abort(UpstreamTimeout(f"silent for {seconds:g} s", self._call.source))

    def close(self) -> None:
        """Stop the deadlines and give the connection up, or back if the body was read to its end."""
        self._deadlines.cancel()
        # First the leg lets go: the descriptor's number may be somebody else's once it is closed.
        self._leg.detach()
        self._leg.end()
        # Whatever goes wrong while closing, the answer has been had or given up already.
        with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
            self._raw.close()


class UpstreamClient:
    """One pool of kept-alive connections for all backends."""

    def __init__(self, alarms: Alarms, pool_size: int) -> None:
        self._alarms = alarms
        self._adapter = CapturingAdapter(pool_connections=16, pool_maxsize=pool_size, max_retries=0)
        self._session = requests.Session()
        self._transports: dict[str, dict[str, Any]] = {}
        self._occupancies: defaultdict[str, Occupancy] = defaultdict(Occupancy)

    def open(self, call: Call, leg: Leg) -> UpstreamResponse:
        """Send the call and wait for the headers of the answer, whatever its status.

        Raises UpstreamUnreachable, UpstreamTimeout or UpstreamBroken, or the reason for which ``leg`` was aborted.
        """
        leg.raise_if_aborted()
        started = time.monotonic()
        deadlines = self._set_deadlines(call, leg)
        if leg.purpose is not None:
            leg.begin(call.source, self._occupancies[call.source.backend])
        try:
            with _border(call, leg, answering=False):
                raw = self._send(call, leg)
        except BaseException:  # whatever it is, it goes on; its deadlines are void
            deadlines.cancel()
            leg.end()
            raise
        connect_ms = (time.monotonic() - started) * 1000
        leg.status = raw.status
        return UpstreamResponse(raw, call, leg, deadlines=deadlines, alarms=self._alarms, connect_ms=connect_ms)

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()

    def _set_deadlines(self, call: Call, leg: Leg) -> Deadlines:
        def alarm(seconds: float, what: str) -> Alarm:
            late = UpstreamTimeout(f"{what} within {seconds:g} s", call.source)
            return self._alarms.after(seconds, lambda: leg.abort(late))

        timeouts = call.timeouts
        first_byte = None if timeouts.first_byte is None else alarm(timeouts.first_byte, "no first byte")
        return Deadlines(first_byte, alarm(timeouts.total, "no complete answer"))

    def _send(self, call: Call, leg: Leg) -> Any:
        started = time.monotonic()
        try:
            return self._send_once(call, leg)
        except requests.ConnectionError as problem:
            # A backend may close an idle connection in the very moment in which we pick it from the pool (uvicorn
            # does after 5 s). That shows at once; what fails later may have been read, and worked on, and billed.
            at_once = time.monotonic() - started < _STALE_SHOWS_WITHIN_S
            if at_once and leg.reused and leg.reason is None and isinstance(_root(problem), _STALE):
                log.debug("%s closed an idle connection, trying a new one", call.source.backend)
                return self._send_once(call, leg)
            raise

    def _send_once(self, call: Call, leg: Leg) -> Any:
        request = requests.PreparedRequest()
        request.method, request.url, request.body = call.method, call.url, call.body
        request.headers = CaseInsensitiveDict(call.headers)
        if call.body is not None:
            request.headers["Content-Length"] = str(len(call.body))
        if leg.traceparent is not None:
            request.headers["traceparent"] = leg.traceparent
        limits = (call.timeouts.connect, call.timeouts.longest_read)
        with travelling(leg):
            response = self._adapter.send(request, stream=True, timeout=limits, **self._transport(call.url))
        return response.raw

    def _transport(self, url: str) -> dict[str, Any]:
        """Proxies and CA bundle for a URL as requests finds them in the environment, looked up once."""
        found = self._transports.get(url)
        if found is None:
            merged = self._session.merge_environment_settings(url, {}, None, None, None)
            found = {key: merged[key] for key in ("proxies", "verify", "cert")}
            self._transports[url] = found
        return found


@contextmanager
def _border(call: Call, leg: Leg, *, answering: bool) -> Iterator[None]:
    """Foreign exceptions become ours; those of a leg that we aborted become the reason for it."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as problem:
        if leg.reason is not None:
            raise leg.reason from None
        raise translate(problem, call, answering=answering) from problem


def translate(problem: Exception, call: Call, *, answering: bool) -> UpstreamError:
    """Name a foreign exception. ``answering``: whether the backend had begun to answer."""
    root = _root(problem)
    if isinstance(root, ssl.SSLError):
        return UpstreamUnreachable(f"TLS failed: {root.reason or 'handshake'}", call.source)
    if isinstance(problem, requests.ConnectTimeout):
        return UpstreamTimeout(f"no connection within {call.timeouts.connect:g} s", call.source)
    if isinstance(problem, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return UpstreamTimeout(f"silent for {call.timeouts.idle:g} s", call.source)
    if answering:
        return UpstreamBroken("the connection broke before the answer was complete", call.source)
    if isinstance(root, _STALE):
        return UpstreamBroken("the connection was closed without an answer", call.source)
    return UpstreamUnreachable(_why_unreachable(root), call.source)


def _why_unreachable(root: BaseException) -> str:
    if isinstance(root, socket.gaierror):
        return "no such host"
    if isinstance(root, ConnectionRefusedError):
        return "connection refused"
    return f"no connection ({type(root).__name__})"


def _root(problem: BaseException) -> BaseException:
    """The innermost exception: requests and urllib3 wrap what happened up to four times."""
    seen: set[int] = set()
    while id(problem) not in seen:
        seen.add(id(problem))
        inner = getattr(problem, "reason", None)
        if not isinstance(inner, BaseException):
            inner = problem.__cause__ or next((a for a in problem.args if isinstance(a, BaseException)), None)
        if inner is None:
            inner = problem.__context__
        if inner is None:
            break
        problem = inner
    return problem
