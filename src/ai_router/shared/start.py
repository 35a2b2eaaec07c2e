"""Starting what is shared, in each process."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from ai_router.shared.client import SharedClient
from ai_router.shared.peers import NoPeers, Peers, RedisPeers
from ai_router.shared.values import NoValues, SharedValues, Values


@dataclass(frozen=True, slots=True)
class Shared:
    """What a process shares with others. ``client``: None for one that is alone."""

    values: Values
    peers: Peers
    client: SharedClient | None = None


ALONE = Shared(NoValues(), NoPeers())


def start_shared(url: str | None, closing: ExitStack) -> Shared:
    """What is shared at the Redis or Valkey of this address; None: nothing. ``closing`` ends it."""
    if url is None:
        return ALONE
    client = SharedClient(url)
    closing.callback(client.close)
    values, peers = SharedValues(client), RedisPeers(client)
    values.start()
    closing.callback(values.close)
    peers.start()
    closing.callback(peers.close)
    return Shared(values, peers, client)
