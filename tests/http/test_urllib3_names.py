"""The private names of urllib3 that ai_router.http.connections uses: each is there, takes what we give it, and is used.

If a test here fails after an upgrade, connections.py has to change before the range in pyproject.toml does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.poolmanager import PoolManager, ProxyManager


@pytest.mark.parametrize("pool", [HTTPConnectionPool, HTTPSConnectionPool])
def test_a_pool_lends_and_takes_back_a_connection(pool: Callable[..., Any]) -> None:
    made = pool("127.0.0.1", maxsize=1)
    connection = made._get_conn()
    assert isinstance(connection, made.ConnectionCls)
    assert connection.is_closed
    made._put_conn(connection)
    assert made._get_conn() is connection
    made.close()
    assert made.pool is None


def test_a_pool_prepares_a_tunnel_on_a_connection() -> None:
    assert list(inspect.signature(HTTPSConnectionPool._prepare_proxy).parameters) == ["self", "conn"]


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
def test_connect_takes_its_socket_from_new_conn(kind: type[HTTPConnection]) -> None:
    class Reached(Exception):
        """Our method was called."""

    class Connection(kind):  # type: ignore[misc, valid-type]
        def _new_conn(self) -> Any:
            raise Reached

    with pytest.raises(Reached):
        Connection("127.0.0.1").connect()


def test_a_connection_knows_the_name_to_look_up() -> None:
    assert HTTPConnection("example.org.")._dns_host == "example.org."


def test_a_manager_makes_pools_of_the_classes_it_is_given() -> None:
    class Pool(HTTPConnectionPool):
        """Ours."""

    for manager in (PoolManager(), ProxyManager("http://127.0.0.1:1")):
        manager.pool_classes_by_scheme = {"http": Pool, "https": HTTPSConnectionPool}
        assert type(manager.connection_from_url("http://127.0.0.1")) is Pool
