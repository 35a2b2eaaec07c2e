"""What is local: the addresses of this machine and of private networks. A local-only call goes nowhere else."""

from __future__ import annotations

import ipaddress

from ai_router.errors import RouterError

_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""Loopback, private (RFC 1918, RFC 4193) and link-local. Not Python's ``is_private``: that has more, and other ones in
each version."""


class NotLocal(RouterError):
    """403: a local-only request would have to leave the local network."""

    status = 403
    type = "permission_error"
    code = "not_local"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def is_local(address: str) -> bool:
    """Whether an IP address is loopback, private or link-local."""
    # An IPv6 address may name its interface: fe80::1%eth0.
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in _NETWORKS if network.version == found.version)


def check_addresses(backend: str, addresses: list[str]) -> None:
    """Raises NotLocal unless all addresses of a backend are local."""
    if not addresses or not all(map(is_local, addresses)):
        raise NotLocal(f"{backend} is not in the local network, and this request is local-only")
