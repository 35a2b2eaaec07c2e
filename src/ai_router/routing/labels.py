"""What a request can be decided to be, with an owner's routes, and what the classifier is told of that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ai_router.providers.own_routes import OwnRoute, label_of
from ai_router.routing.prompt import DESCRIPTIONS, described, system_prompt
from ai_router.routing.verdict import LABELS, LabelSet
from ai_router.types import LabelName


class Labels:
    """The labels. Immutable.

    ``own``: the owner's routes, by their labels. ``names``: all that the classifier may say. ``prompt``: its system
    prompt. ``digests``: of what each of the owner's routes is learned from. ``digest``: of all of them, for the keys of
    decisions that are kept; empty without any.
    """

    def __init__(self, routes: Mapping[str, OwnRoute] | None = None) -> None:
        self.own_routes: Mapping[LabelName, OwnRoute] = {
            label_of(name): route for name, route in (routes or {}).items()
        }
        self.names = LabelSet((*LABELS, *self.own_routes))
        self.prompt = system_prompt(self.own_routes)
        meanings = {**DESCRIPTIONS, **{label: described(route) for label, route in self.own_routes.items()}}
        self.criteria = {str(label): meaning for label, meaning in meanings.items()}
        self.digests = {label: route.digest for label, route in self.own_routes.items()}
        self.digest = hashlib.blake2b(self.prompt.encode(), digest_size=8).digest() if self.own_routes else b""
