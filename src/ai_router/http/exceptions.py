"""The network's own exceptions as ours: above here nothing knows that requests, urllib3 or httptools exist."""

from __future__ import annotations

import socket
import ssl

import requests
import urllib3

from ai_router.errors import RouterError, UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from ai_router.http.calls import UpstreamCall, UpstreamRequest
from ai_router.http.http1 import NotHTTP

STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
"""What a connection fails with that its other end has closed."""


TRANSPORT_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, NotHTTP)
"""All that a call on the network may fail with."""


def map_exceptions(problem: Exception, request: UpstreamRequest, call: UpstreamCall, *, answering: bool) -> RouterError:
    """One of TRANSPORT_ERRORS as an error of ours: the reason for which the call was aborted, if it was.

    ``answering``: whether the backend had begun to answer.
    """
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
