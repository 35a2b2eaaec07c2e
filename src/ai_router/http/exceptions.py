"""Exceptions of sockets, requests, urllib3 and the HTTP parser, mapped to the errors of errors.py."""

from __future__ import annotations

import socket
import ssl

import requests
import urllib3

from ai_router.errors import RouterError, UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from ai_router.http.calls import UpstreamCall, UpstreamRequest
from ai_router.http.http1 import NotHTTP

STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
"""Errors of a connection that the other side has closed."""

TRANSPORT_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, NotHTTP)
"""All exceptions that ``map_exceptions`` maps."""


def map_exceptions(problem: Exception, request: UpstreamRequest, call: UpstreamCall, *, answering: bool) -> RouterError:
    """The error for ``problem``, one of TRANSPORT_ERRORS. If the call was aborted, it is the reason of that.

    ``answering``: whether the response's headers had been read.
    """
    return call.reason or translate(problem, request, answering=answering)


def translate(problem: Exception, request: UpstreamRequest, *, answering: bool) -> UpstreamError:
    """UpstreamUnreachable, UpstreamTimeout or UpstreamBroken. ``answering``: whether headers had been read."""
    root = root_cause(problem)
    if isinstance(root, ssl.SSLError):
        return UpstreamUnreachable(f"TLS failed: {root.reason or 'handshake'}", request.source)
    # Before the headers only a connect times out. urllib3's "refused" is a subclass of its timeout: hence the root.
    if isinstance(root, TimeoutError) and not answering:
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
    """The innermost exception; requests and urllib3 wrap it up to four times."""
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
