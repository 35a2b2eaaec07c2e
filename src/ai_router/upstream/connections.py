"""Connections that tell the leg in progress which socket it is on.

requests -> HTTPAdapter -> PoolManager -> pool -> connection: the pool classes here lend out connection classes that
attach their socket to the thread's current leg, and detach it before the connection goes back into the pool.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
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
    """Mixed into a connection: attach on connect and on reuse."""

    leg: Leg | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.leg = getattr(_current, "leg", None)
        if self.leg is not None:
            self.leg.attach(cast(Any, self).sock, reused=False)

    def request(self, *args: Any, **kwargs: Any) -> None:
        sock = cast(Any, self).sock
        leg = getattr(_current, "leg", None)
        if sock is not None and leg is not None and self.leg is None:
            self.leg = leg
            leg.attach(sock, reused=True)
        super().request(*args, **kwargs)  # type: ignore[misc]


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
