"""The border to the network's own exceptions: above it nobody knows that requests, urllib3 or httptools exist."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from ai_router.errors import RouterError, UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from ai_router.http.calls import Leg
from ai_router.http.http1 import NotHTTP
from ai_router.http.request import Call

STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
"""What a connection fails with that its other end has closed."""


@contextmanager
def border(call: Call, leg: Leg, *, answering: bool) -> Iterator[None]:
    """Foreign exceptions become ours; those of a leg that we aborted become the reason for it."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, NotHTTP) as problem:
        raise ours(problem, call, leg, answering=answering) from (None if leg.reason else problem)


def ours(problem: Exception, call: Call, leg: Leg, *, answering: bool) -> RouterError:
    """The same as an error of ours."""
    return leg.reason or translate(problem, call, answering=answering)


def translate(problem: Exception, call: Call, *, answering: bool) -> UpstreamError:
    """Name a foreign exception. ``answering``: whether the backend had begun to answer."""
    root = _root(problem)
    if isinstance(root, ssl.SSLError):
        return UpstreamUnreachable(f"TLS failed: {root.reason or 'handshake'}", call.source)
    # Nothing but connecting has a timeout on the socket; urllib3 derives what was refused from what took too long.
    if isinstance(root, TimeoutError):
        return UpstreamTimeout(f"no connection within {call.timeouts.connect:g} s", call.source)
    if isinstance(problem, NotHTTP):
        return UpstreamBroken(f"the answer is not HTTP/1.1 as it should be: {problem}", call.source)
    if answering:
        return UpstreamBroken("the connection broke before the answer was complete", call.source)
    if isinstance(root, STALE):
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
