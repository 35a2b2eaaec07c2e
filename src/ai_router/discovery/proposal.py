"""Which of the models that were found should answer, and which should decide. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ai_router.providers.servers import FoundModel, FoundServer

_CLASSIFIER_BILLIONS = (3.0, 14.0)
"""The size of a classifier: less decides worse than the model in the router (docs/benchmarks.md), more takes long."""
_TRAINED_TO_DECIDE = "orchestrator"


@dataclass(frozen=True, slots=True)
class Choice:
    """One model on one server."""

    server: FoundServer
    model: FoundModel


def choices(servers: Sequence[FoundServer]) -> Sequence[Choice]:
    """All models, the best for a primary first: those in memory, then the largest."""
    found = [Choice(server, model) for server in servers for model in server.models]
    return sorted(found, key=lambda choice: (choice.model.loaded is False, -(choice.model.billions or 0.0)))


def classifier_beside(primary: Choice, found: Sequence[Choice]) -> Choice | None:
    """The model that should decide, where ``primary`` answers; None: the one in the router does it alone.

    It is on another server, one that keeps it in memory: on one server that loads on demand, each request would put
    one of the two out of memory for the other.
    """
    low, high = _CLASSIFIER_BILLIONS
    fitting = [
        choice
        for choice in found
        if choice.server != primary.server
        and choice.model.loaded is not False
        and choice.model.billions is not None
        and low <= choice.model.billions <= high
        and choice.model.billions < (primary.model.billions or high)
    ]
    trained = [choice for choice in fitting if _TRAINED_TO_DECIDE in choice.model.name.lower()]
    return min(trained or fitting, key=lambda choice: choice.model.billions or high, default=None)


def settings_of(primary: Choice, classifier: Choice | None) -> Mapping[str, str]:
    """What to set, by the names of the settings."""
    asked = {"PRIMARY_URL": primary.server.url, "PRIMARY_MODEL": primary.model.name}
    if classifier is None:
        return asked
    return {**asked, "ROUTER_URL": classifier.server.url, "ROUTER_MODEL": classifier.model.name}


def urls_of(address: str, ports: Sequence[int]) -> Sequence[str]:
    """The URLs to ask for ``address``: itself where it names a port or a scheme, else one for each of ``ports``.

    >>> urls_of("gpu:8000", (1,)), urls_of("gpu", (1, 2))
    (['http://gpu:8000'], ['http://gpu:1', 'http://gpu:2'])
    """
    bare = address.rstrip("/").removesuffix("/v1")
    if "://" in bare:
        return [bare]
    is_ipv6 = bare.count(":") > 1 and not bare.startswith("[")
    host = f"[{bare}]" if is_ipv6 else bare
    if not is_ipv6 and ":" in bare.rpartition("]")[2]:
        return [f"http://{host}"]
    return [f"http://{host}:{port}" for port in ports]
