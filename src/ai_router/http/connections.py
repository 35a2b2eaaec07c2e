"""The pool of connections to backends. Each connection's socket is held by the call that uses it.

requests finds the pool for a URL (proxies, the CA bundle). urllib3 connects (TLS, tunnels) and keeps idle connections.
The classes here give the socket to the call before the connect, so that a connect can be aborted, too, and take it back
before the connection is closed or used by another call.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from cachetools import TTLCache
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager

from ai_router.http.calls import UpstreamCall
from ai_router.http.local_only import check_addresses
from ai_router.http.session import POOLED_HOSTS, BackendSession

_MAX_IDLE_S = 30.0
"""Older idle connections are not used: firewalls and VPNs forget them without a word."""
_LOOK_UPS = 8
_LOCAL = frozenset({"localhost"})
"""Names that need no name server."""
_LIVENESS = (
    *(("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)),
    ("TCP_USER_TIMEOUT", 15_000),  # in ms
)
"""A backend that has vanished is noticed within a minute, also while a long answer is awaited; within 15 s where it
does not acknowledge what was sent to it. Names that a platform lacks are passed over."""


_LONGEST_CONNECT_S = 60.0
_FIRST_TRY_S = 0.5
"""For each address but the last: a host with several has one that answers."""
_DEAD_S = 60.0
"""How long an address that did not answer is tried behind the others."""


class Resolver:
    """Looks addresses up within a time, and remembers which of them did not answer. Safe from any thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="resolve")
        self._dead: TTLCache[Any, bool] = TTLCache(1_000, _DEAD_S)
        self._lock = threading.Lock()

    def look_up(self, host: str, port: int, limit_s: float) -> list[Any]:
        """As ``socket.getaddrinfo`` returns them, those last that have failed lately.

        Raises socket.gaierror, or TimeoutError after ``limit_s`` seconds: a name server may be silent for long.
        """
        if host in _LOCAL or host.replace(".", "").isdigit() or ":" in host:
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        else:
            found = self._threads.submit(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM).result(limit_s)
        with self._lock:
            return sorted(found, key=lambda entry: entry[4] in self._dead)

    def failed(self, address: Any) -> None:
        """This address did not answer."""
        with self._lock:
            self._dead[address] = True

    def close(self) -> None:
        """Look-ups that hang are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _GivesSocket:
    """Mixed into urllib3's connections: gives the socket to ``call`` before it connects."""

    call: UpstreamCall | None = None
    resolver: Resolver
    idle_since = 0.0
    """When it was given back to the pool, in monotonic seconds."""
    local_backend = ""
    """The backend whose address has to be local; empty: any address will do."""
    host: str
    port: int
    timeout: float | None
    sock: Any
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        """A socket that is connected to the first of the host's addresses that answers.

        Replaces urllib3's own method, which creates the socket inside: a connect that hangs could not be aborted. Nor
        has that a limit for the look-up, and it tries a dead address again each time.
        """
        limit_s = self.timeout or _LONGEST_CONNECT_S
        end = time.monotonic() + limit_s
        try:
            addresses = self.resolver.look_up(self._dns_host, self.port, limit_s)
        except socket.gaierror as problem:
            raise NameResolutionError(self.host, cast(Any, self), problem) from problem
        except TimeoutError as problem:
            raise ConnectTimeoutError(self, f"no address within {self.timeout} s") from problem
        if self.local_backend:
            check_addresses(self.local_backend, [address[0] for *_, address in addresses])
        failure: OSError = ConnectionRefusedError("no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
            left_s = max(end - time.monotonic(), 0.001)
            # The last one has all the time that is left: it may only be far away.
            limit = left_s if number == len(addresses) else min(left_s, _FIRST_TRY_S)
            try:
                return self._connect_to(socket.socket(family, kind, protocol), address, limit)
            except OSError as problem:
                failure = problem
                self.resolver.failed(address)
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection within {self.timeout} s") from failure
        raise NewConnectionError(cast(Any, self), str(failure)) from failure

    def _connect_to(self, sock: socket.socket, address: Any, limit_s: float) -> socket.socket:
        try:
            sock.settimeout(limit_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for name, value in _LIVENESS:
                if (option := getattr(socket, name, None)) is not None:
                    level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
                    sock.setsockopt(level, option, value)
            if self.call is not None:
                self.call.hold_socket(sock, reused=False)
            sock.connect(address)
            if self.call is not None:
                self.call.raise_if_aborted()
        except BaseException:  # raised again; nothing else would close the socket
            if self.call is not None:
                self.call.release_socket()
            sock.close()
            raise
        sock.settimeout(self.timeout)
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self.call is not None and self.sock is not None:
            # With TLS the socket is another object now, with the same descriptor.
            self.call.hold_socket(self.sock, reused=False)


class _HTTPConnection(_GivesSocket, HTTPConnection):
    pass


class _HTTPSConnection(_GivesSocket, HTTPSConnection):
    pass


class _LeasablePool:
    """Mixed into urllib3's pools: lends connections to calls, without urllib3's way of making requests."""

    pool: Any
    """None once it is closed."""
    idle_is_dead_before = 0.0
    """Connections that are idle since before then, in monotonic seconds, are not used."""

    def acquire(
        self, call: UpstreamCall, connect_s: float, resolver: Resolver, *, tunnelled: bool, local_backend: str
    ) -> Any:
        """A connection for ``call``, idle or new. Its socket blocks without a timeout.

        ``connect_s``: the limit for a connect; ``tunnelled``: connect through a proxy with CONNECT; ``local_backend``:
        as above. Raises what urllib3 and the socket raise, NotLocal, or what the call was aborted for.
        """
        conn = self._get_conn()  # type: ignore[attr-defined]
        try:
            conn.call, conn.resolver, conn.local_backend = call, resolver, local_backend
            if conn.idle_since < max(self.idle_is_dead_before, time.monotonic() - _MAX_IDLE_S):
                conn.close()
            if conn.is_closed:
                conn.timeout = connect_s
                if tunnelled:
                    self._prepare_proxy(conn)  # type: ignore[attr-defined]
                else:
                    conn.connect()
                conn.sock.settimeout(None)
            else:
                if local_backend:
                    check_addresses(local_backend, [conn.sock.getpeername()[0]])
                call.hold_socket(conn.sock, reused=True)
        except BaseException:  # raised again
            self.release(conn, usable=False)
            raise
        return conn

    def release(self, conn: Any, *, usable: bool) -> None:
        """Back to the pool, closed unless ``usable`` and not aborted. Detached first: once a descriptor is closed, the
        kernel may give its number to another connection, which a late abort would shut."""
        call, conn.call = conn.call, None
        if not (call.release_socket() and usable):
            conn.close()
        conn.idle_since = time.monotonic()
        self._put_conn(conn)  # type: ignore[attr-defined]


class _HTTPPool(_LeasablePool, HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_LeasablePool, HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """An HTTPAdapter of requests that makes the pools above, with and without a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        cast(PoolManager, self.poolmanager).pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> ProxyManager:
        manager = cast(ProxyManager, super().proxy_manager_for(proxy, **kwargs))
        manager.pool_classes_by_scheme = _POOLS
        return manager


@dataclass(frozen=True, slots=True)
class _ResolvedTarget:
    """How a URL is reached: the pool, the target for the request line, headers to send, whether by a proxy, and whether
    by a tunnel through that."""

    pool: _LeasablePool
    target: str
    headers: dict[str, str]
    proxied: bool
    tunnelled: bool


class Lease:
    """A connection that belongs to one call until ``release``."""

    __slots__ = ("_conn", "_resolved", "sock")

    def __init__(self, conn: Any, resolved: _ResolvedTarget) -> None:
        self._conn = conn
        self._resolved = resolved
        self.sock: socket.socket = conn.sock

    @property
    def target(self) -> str:
        """The target for the request line: the path, or the whole URL for a proxy."""
        return self._resolved.target

    @property
    def headers(self) -> dict[str, str]:
        """Headers for every request on this connection: Host, and a proxy's."""
        return self._resolved.headers

    def release(self, *, usable: bool) -> None:
        """Give the connection back to the pool; it is closed if it is not ``usable``. Idempotent."""
        conn, self._conn = self._conn, None
        if conn is not None:
            self._resolved.pool.release(conn, usable=usable)


class ConnectionPool:
    """Connections to all backends. ``size``: how many idle ones are kept for each. Safe from any thread."""

    def __init__(self, size: int) -> None:
        self._adapter = _Adapter(pool_connections=POOLED_HOSTS, pool_maxsize=size, max_retries=0)
        self._session = BackendSession()
        self._resolver = Resolver()
        self._resolved_targets: dict[str, _ResolvedTarget] = {}

    def acquire(self, url: str, call: UpstreamCall, connect_s: float, local_backend: str = "") -> Lease:
        """A connection to ``url`` for ``call``, connected within ``connect_s`` seconds. ``local_backend``: the name of
        the backend, if its address has to be local.

        Raises what urllib3 and the socket raise, NotLocal, or what ``call`` was aborted for.
        """
        resolved = self._resolved_targets.get(url)
        if resolved is None or resolved.pool.pool is None:  # requests closes the pools that were used longest ago
            resolved = self._resolved_targets[url] = self._resolve(url)
        if local_backend and resolved.proxied:
            # Nobody here knows where a proxy sends it.
            check_addresses(local_backend, [])
        conn = resolved.pool.acquire(
            call, connect_s, self._resolver, tunnelled=resolved.tunnelled, local_backend=local_backend
        )
        return Lease(conn, resolved)

    def distrust_idle(self, url: str) -> None:
        """Use no connection to ``url`` that is idle now: one of them was dead."""
        resolved = self._resolved_targets.get(url)
        if resolved is not None:
            resolved.pool.idle_is_dead_before = time.monotonic()

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()
        self._resolver.close()

    def _resolve(self, url: str) -> _ResolvedTarget:
        """Pool and target of ``url``, with the proxy and the CA bundle of the environment, as requests reads it."""
        found = self._session.merge_environment_settings(url, {}, None, None, None)
        request = requests.PreparedRequest()
        request.url = url
        pool: Any = self._adapter.get_connection_with_tls_context(
            request, found["verify"], proxies=found["proxies"], cert=found["cert"]
        )
        # requests does this for each of its requests: certifi's bundle, unless the environment names another.
        self._adapter.cert_verify(pool, url, found["verify"], found["cert"])  # type: ignore[no-untyped-call]
        proxy = select_proxy(url, found["proxies"])
        secure = urlsplit(url).scheme == "https"
        headers = {"Host": urlsplit(url).netloc.rpartition("@")[2]}
        if proxy and not secure:
            headers |= self._adapter.proxy_headers(proxy)
        target = self._adapter.request_url(request, found["proxies"])
        return _ResolvedTarget(pool, target, headers, proxied=bool(proxy), tunnelled=bool(proxy) and secure)
