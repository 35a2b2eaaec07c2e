"""The border to the network's own exceptions: above it nobody knows that requests, urllib3 or httptools exist."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from ai_router.errors import RouterError, UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from ai_router.http.calls import UpstreamCall
from ai_router.http.http1 import NotHTTP
from ai_router.http.request import UpstreamRequest

STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
"""What a connection fails with that its other end has closed."""


@contextmanager
def map_exceptions(request: UpstreamRequest, call: UpstreamCall, *, answering: bool) -> Iterator[None]:
    """Foreign exceptions become ours; those of a call that we aborted become the reason for it."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, NotHTTP) as problem:
        raise mapped(problem, request, call, answering=answering) from (None if call.reason else problem)


def mapped(problem: Exception, request: UpstreamRequest, call: UpstreamCall, *, answering: bool) -> RouterError:
    """The same as an error of ours."""
    return call.reason or translate(problem, request, answering=answering)


def translate(problem: Exception, request: UpstreamRequest, *, answering: bool) -> UpstreamError:
    """Name a foreign exception. ``answering``: whether the backend had begun to answer."""
    root = root_cause(problem)
    if isinstance(root, ssl.SSLError):
        return UpstreamUnreachable(f"TLS failed: {root.reason or 'handshake'}", request.source)
    # Nothing but connecting has a timeout on the socket; urllib3 derives what was refused from what took too long.
    if isinstance(root, TimeoutError):
        return UpstreamTimeout(f"no connection within {request.timeouts.connect:g} s", request.source)
    if isinstance(problem, NotHTTP):
        return UpstreamBroken(f"the answer is not HTTP/1.1 as it should be: {problem}", request.source)
    if answering:
        return UpstreamBroken("the connection broke before the answer was complete", request.source)
    if isinstance(root, STALE):
        return UpstreamBroken("the connection was closed without an answer", request.source)
    return UpstreamUnreachable(_why_unreachable(root), request.source)


def _why_unreachable(root: BaseException) -> str:
    if isinstance(root, socket.gaierror):
        return "no such host"
    if isinstance(root, ConnectionRefusedError):
        return "connection refused"
    return f"no connection ({type(root).__name__})"


def root_cause(problem: BaseException) -> BaseException:
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
