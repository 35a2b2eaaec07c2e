"""API families: how requests are phrased and answers read, one module each. A module put here is a family by its name.

The router speaks chat completions with its clients. A family whose servers speak that, too, changes no answer; any
other translates, whole or event by event.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestParts:
    """What a body is made of: ``params`` are the client's other fields, those of the model's rules applied; composite
    ones are ``orjson.Fragment``, but for ``stream_options``."""

    model: str
    send_as: str
    stream: bool
    messages_json: bytes
    params: Mapping[str, Any]

    def parsed(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Messages and params as plain values, for a family that has to take them apart."""
        return orjson.loads(self.messages_json), orjson.loads(orjson.dumps(dict(self.params)))


class Translation(Protocol):
    """The translation of one stream."""

    def feed(self, payload: Payload) -> Sequence[Payload]:
        """The ``chat.completion.chunk`` objects that an event amounts to; for a failure, one with ``error``."""

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, so that nothing but [DONE] is missing."""


class Family(Protocol):
    """One API. ``path`` stands below the address's /v1."""

    path: str

    def body(self, parts: RequestParts) -> bytes:
        """The body of the request."""

    def completion(self, payload: Payload) -> Payload | None:
        """The ``chat.completion`` that a whole answer amounts to; None: it is one. Raises ValueError if it is none."""

    def translation(self) -> Translation | None:
        """For a stream; None: its events are what the client is to see."""


def _load_families() -> Mapping[str, Family]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").FAMILY for name in names}


FAMILIES = _load_families()
