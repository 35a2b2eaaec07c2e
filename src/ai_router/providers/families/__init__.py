"""API families: how to write a request for an API, and how to read its answers. One module each.

A module that is put here is a family by its name: the catalogue may name it, and nothing else needs to change. It has
an object FAMILY (see ``Family``).

Inside the router requests and answers have the form of chat completions. A family whose API is that, too, passes
answers on as they are. Any other family translates them: a whole answer at once, a stream event by event. Where the
client speaks the API of the family itself, nothing is translated (SpokenFamily).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ai_router.apis import Additions, Payload


@dataclass(frozen=True, slots=True)
class RequestParts:
    """What the body of a request is made of.

    ``send_as``: the name of the field for ``model``. ``messages_json``: the array of messages. ``params``: the client's
    other fields, after the model's rules; objects and arrays are ``orjson.Fragment``, except ``stream_options``.
    """

    model: str
    send_as: str
    stream: bool
    messages_json: bytes
    params: Mapping[str, Any]

    def parsed(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The messages and the params as plain values, for a family that rewrites them."""
        return orjson.loads(self.messages_json), orjson.loads(orjson.dumps(dict(self.params)))


@dataclass(frozen=True, slots=True)
class ClientBodyParts:
    """What the body of a request is made of whose client speaks this API itself. ``fields``: the client's, after the
    model's rules, without ``model`` and ``stream``."""

    model: str
    send_as: str
    stream: bool
    fields: Mapping[str, Any]
    additions: Additions
    left_out: Collection[str] = ()
    """The names of thoughts that are not sent: another backend made them, and this one cannot read them."""
    thinks: bool = False
    """Whether the model is known to think."""


class Translation(Protocol):
    """Translates one stream into events of chat completions. ``ends_with_done``: whether [DONE] ends its streams."""

    ends_with_done: bool

    def feed(self, payload: Payload) -> Sequence[Payload]:
        """The ``chat.completion.chunk`` objects for one event; for a failure, one object with ``error``."""

    @property
    def ended(self) -> bool:
        """Whether the answer is complete: the client only needs [DONE] now."""


class Family(Protocol):
    """One API. ``name``: that of its module. ``path``: its endpoint for chats, below the API's root (mostly /v1).
    ``fields``: those of a client that have a place in its bodies; None: all."""

    name: str
    path: str

    @property
    def fields(self) -> frozenset[str] | None: ...

    def body(self, parts: RequestParts) -> bytes:
        """The body of the request, as JSON."""

    def completion(self, payload: Payload) -> Payload | None:
        """The ``chat.completion`` for a whole answer; None if the answer is one already.

        Raises ValueError for an answer that is not one of this API.
        """

    def translation(self) -> Translation | None:
        """A new translation for one stream; None if its events are already those of chat completions."""


class SpokenFamily(Family, Protocol):
    """An API that clients of the router speak, too: their bodies are passed on (client_apis/)."""

    def body_from_client(self, parts: ClientBodyParts) -> bytes:
        """The client's body for the backend, as JSON."""


def _load_families() -> Mapping[str, Family]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").FAMILY for name in names}


FAMILIES = _load_families()
