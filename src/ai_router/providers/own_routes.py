"""Routes of the owner's own: ``[routes.NAME]`` in the catalogue. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Annotated

from msgspec import Meta, Struct

from ai_router.types import Label

LEAST_EXAMPLES = 5
_NAME = re.compile(r"[a-z][a-z0-9_-]{1,15}")
_TAKEN = frozenset({"auto", "primary", "classifier", "search", "embeddings", "rerank", "audio", "images"})
"""Names that mean something else as a model, as a chain, or as what a key may use."""


class OwnRoute(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked of such a route, and who answers.

    ``description``: for the classifier, and for people. ``examples``: requests as users make them; ``unlike``: others
    that look like them and are not meant. ``backend``, or ``chain``: who answers, as an entry of a chain, or several of
    them, the first choice first. ``max_tokens``: the most that an answer may have.
    """

    description: str
    examples: tuple[str, ...]
    unlike: tuple[str, ...] = ()
    backend: str | None = None
    chain: tuple[str, ...] = ()
    max_tokens: Annotated[int, Meta(gt=0)] | None = None

    @property
    def entries(self) -> tuple[str, ...]:
        """Who answers, the first choice first."""
        return self.chain if self.backend is None else (self.backend,)

    @property
    def digest(self) -> str:
        """Of what it is learned from: it is another one when that has changed."""
        parts = (self.description, *self.examples, "", *self.unlike)
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def label_of(name: str) -> str:
    """The label of an owner's route."""
    return name.upper()


def route_problems(routes: Mapping[str, OwnRoute], providers: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with the routes, but for who answers."""
    for name, route in routes.items():
        yield from (f"routes.{name}: {problem}" for problem in _problems(name, route, providers))
    for name, other in permutations((*routes, *(label.lower() for label in Label)), 2):
        # One of them is an owner's. The classifier is stopped once what it has written is one label's beginning.
        if other.startswith(name) and other != name and (name in routes or other in routes):
            yield f"routes.{name if name in routes else other}: neither of {name!r} and {other!r} may begin the other"


def _problems(name: str, route: OwnRoute, providers: Mapping[str, object]) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "a route's name must match [a-z][a-z0-9_-]* and have 2 to 16 characters"
    if name in _TAKEN or name in providers or name in {*(label.lower() for label in Label), "xai", "enrich", "meta"}:
        yield "there is a route or a provider of that name, or it means something else"
    if not route.description.strip():
        yield "its description says what is asked of it, in a few words"
    examples = {" ".join(example.split()).casefold() for example in route.examples} - {""}
    if len(examples) < LEAST_EXAMPLES:
        yield f"it needs {LEAST_EXAMPLES} different examples at least, and has {len(examples)}"
    if (route.backend is None) == (not route.chain):
        yield "it has a backend, or a chain of several: one of them"
