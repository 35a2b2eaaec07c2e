"""The decision of a request that may not leave the local network. Nobody is asked for it, and nothing is remembered."""

from __future__ import annotations

from ai_router.providers.catalogue import META
from ai_router.providers.registry import Registry
from ai_router.routing.head.model import Head
from ai_router.routing.head.own_routes import RouteModels
from ai_router.types import ChatRequest, DecidedBy, Decision, Label, Route, route_of


def decide_local_only(request: ChatRequest, registry: Registry, head: Head | None, own: RouteModels) -> Decision:
    """The primary; or, where there are other local backends, or routes of the owner's, what the head makes of it, sure
    or not."""
    reason = f"local-only: {request.local_only}"
    decided = (chain for name, chain in registry.chains.items() if name != META)
    others = (candidate.backend for chain in decided for candidate in chain)
    is_choice = any(backend.local and backend is not registry.primary for backend in others)
    plain = Decision(Label.MODERATE, Route.PRIMARY, DecidedBy.POLICY, reason)
    if head is None or not (is_choice or own.labels):
        return plain
    guess = head.guess(request.messages, request.timestamp.year, own_routes=own)
    if guess.own_match is not None and guess.own_match.matches:
        label = guess.own_match.label
        return Decision(label, route_of(label), DecidedBy.POLICY, f"{reason}; {guess.own_match.reason}", ask=guess.ask)
    if not is_choice:
        return plain
    return Decision(
        guess.label,
        route_of(guess.label),
        DecidedBy.POLICY,
        f"{reason}; {guess.reason}",
        guess.confidence,
        ask=guess.ask,
        evidence=guess.evidence,
    )
