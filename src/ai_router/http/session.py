"""Plain requests to backends with a requests.Session, for calls that no client waits for.

Used for health checks, the primary's gauge and the providers' lists of models. A call that a client waits for must be
abortable from another thread: http/client.py makes those.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from ai_router.errors import UpstreamBroken, UpstreamError, UpstreamFailed, UpstreamTimeout
from ai_router.http.calls import FetchedResponse, UpstreamRequest
from ai_router.http.exceptions import STALE, root_cause, translate

POOLED_HOSTS = 64
"""How many connection pools are kept, one for each scheme, host and port."""
_IDLE_PER_HOST = 4
"""How many idle connections are kept in each pool; a few checks run at a time."""


def is_loopback(url: str) -> bool:
    """Whether a URL's host is localhost, in 127.0.0.0/8, or ::1. No name is looked up.

    A request to such a URL never goes through a proxy: there the same address is another machine.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class BackendSession(requests.Session):
    """A requests.Session without retries, redirects, cookies and default headers. Safe from any thread; close it.

    Proxies and the CA bundle come from the environment as requests documents it, except that loopback needs no proxy.
    ~/.netrc is not read: it would replace a backend's key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.headers.clear()
        self.auth = _keep_headers
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = _TotalTimeoutAdapter(pool_connections=POOLED_HOSTS, pool_maxsize=_IDLE_PER_HOST, max_retries=0)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Proxies, CA bundle and certificate for a URL, in the dict that requests uses; no proxies for loopback."""
        found = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if is_loopback(url):
            found["proxies"] = {}
        return found

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, so that requests follows no redirect; the caller sees its status."""

    def fetch(self, request: UpstreamRequest, max_bytes: int) -> FetchedResponse:
        """Send ``request`` and read the whole response, whatever its status. The body has at most ``max_bytes``.

        It takes at most the request's ``total`` seconds, even if the body arrives slowly, and ``connect`` seconds for
        each address of the host. ``idle`` and ``first_byte`` are not used. Raises UpstreamUnreachable, UpstreamTimeout,
        UpstreamBroken, and UpstreamFailed for a longer body.
        """
        timeouts = request.timeouts
        answering = False
        try:
            response = self.request(
                request.method,
                request.url,
                headers=request.headers,
                data=request.body,
                # requests passes this type on to urllib3, although its type stubs do not say so.
                timeout=cast(Any, urllib3.Timeout(connect=timeouts.connect, total=timeouts.total)),
                stream=True,
            )
            answering = True
            with response:
                body = response.raw.read(max_bytes + 1, decode_content=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as problem:
            raise _map_error(problem, request, answering=answering) from problem
        if len(body) > max_bytes:
            raise UpstreamFailed(f"the answer is longer than {max_bytes} bytes", request.source)
        return FetchedResponse(response.status_code, response.headers, body)


def _map_error(problem: Exception, request: UpstreamRequest, *, answering: bool) -> UpstreamError:
    """The UpstreamError for an exception of requests, urllib3 or the socket."""
    root = root_cause(problem)
    if isinstance(root, (TimeoutError, urllib3.exceptions.ReadTimeoutError)) and not isinstance(
        problem, requests.ConnectTimeout
    ):
        return UpstreamTimeout(f"no complete answer within {request.timeouts.total:g} s", request.source)
    if isinstance(root, http.client.HTTPException) and not isinstance(root, STALE) and not answering:
        return UpstreamBroken(f"the answer is not HTTP/1.1 as it should be: {type(root).__name__}", request.source)
    return translate(problem, request, answering=answering)


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth callback that changes nothing. Without one requests looks for a login in ~/.netrc."""
    return request


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until ``deadline``, in monotonic seconds. (A socket's timeout starts anew with each read.)"""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(remaining_s)
        return cast(int | None, self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """A response whose headers and body together take no longer than the socket's timeout at its start.

    urllib3 sets that timeout to what is left of its ``total`` after connecting.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        timeout_s = sock.gettimeout()
        if timeout_s is not None:
            self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, time.monotonic() + timeout_s))


class _HTTPConnection(HTTPConnection):
    response_class = _TimedResponse


class _HTTPSConnection(HTTPSConnection):
    response_class = _TimedResponse


_CONNECTIONS = {"http": _HTTPConnection, "https": _HTTPSConnection}


class _TotalTimeoutAdapter(HTTPAdapter):
    """An HTTPAdapter whose responses, direct or through a proxy, keep urllib3's ``total`` until the body's end."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _CONNECTIONS[pool.scheme]
        return pool
