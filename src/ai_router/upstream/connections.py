"""Connections that tell the leg in progress which socket it is on.

requests -> HTTPAdapter -> PoolManager -> pool -> connection: the pool classes here lend out connection classes that
attach their socket to the thread's current leg, and detach it before the connection goes back into the pool.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager

from ai_router.upstream.leg import Leg

_current = threading.local()


@contextmanager
def travelling(leg: Leg) -> Iterator[None]:
    """Connections that this thread opens or reuses inside the block belong to ``leg``."""
    _current.leg = leg
    try:
        yield
    finally:
        _current.leg = None


class _Captured:
    """Mixed into a connection: its leg knows the socket from before the connect, and again on reuse."""

    leg: Leg | None = None
    host: str
    port: int
    timeout: float | None
    sock: socket.socket | None
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers.

        urllib3's own hands the socket out only when it is connected, and nobody could abort a connect that hangs.
        """
        self.leg = getattr(_current, "leg", None)
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)
        except socket.gaierror as problem:
            raise NameResolutionError(self.host, cast(Any, self), problem) from problem
        failure: OSError = ConnectionRefusedError("no address")
        for family, kind, protocol, _, address in addresses:
            try:
                return self._connected(socket.socket(family, kind, protocol), address)
            except OSError as problem:
                failure = problem
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection within {self.timeout} s") from failure
        raise NewConnectionError(cast(Any, self), str(failure)) from failure

    def _connected(self, sock: socket.socket, address: Any) -> socket.socket:
        try:
            sock.settimeout(self.timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.leg is not None:
                self.leg.attach(sock, reused=False)
            sock.connect(address)
            if self.leg is not None:
                self.leg.raise_if_aborted()
        except BaseException:  # whatever it is, it goes on; the socket is nobody's
            if self.leg is not None:
                self.leg.detach()
            sock.close()
            raise
        return sock

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self.leg is not None and self.sock is not None:
            # With TLS the socket is another object now, on the same descriptor.
            self.leg.attach(self.sock, reused=False)

    def request(self, *args: Any, **kwargs: Any) -> None:
        leg = getattr(_current, "leg", None)
        if self.sock is not None and leg is not None and self.leg is None:
            self.leg = leg
            leg.attach(self.sock, reused=True)
        super().request(*args, **kwargs)  # type: ignore[misc]
        if self.leg is not None:
            # From here on the backend has it all, whatever becomes of its answer.
            self.leg.sent = len(kwargs.get("body") or b"")


class _HTTPConnection(_Captured, HTTPConnection):
    pass


class _HTTPSConnection(_Captured, HTTPSConnection):
    pass


class _DetachingPool:
    """Mixed into a pool: what comes back is nobody's; what was aborted comes back closed."""

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.leg is not None:
            usable = conn.leg.detach()
            conn.leg = None
            if not usable:
                conn.close()
        super()._put_conn(conn)  # type: ignore[misc]


class _HTTPPool(_DetachingPool, HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_DetachingPool, HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class CapturingAdapter(HTTPAdapter):
    """An HTTPAdapter whose pools are made of the classes above, directly and through a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        cast(PoolManager, self.poolmanager).pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> ProxyManager:
        manager = cast(ProxyManager, super().proxy_manager_for(proxy, **kwargs))
        manager.pool_classes_by_scheme = _POOLS
        return manager
