"""What of a plan a virtual key permits. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ai_router.dispatch.plan import Plan
from ai_router.errors import Forbidden
from ai_router.providers.registry import Candidate
from ai_router.types import DecidedBy, Decision, Route
from ai_router.virtual_key import DEFAULT_ROUTES, VirtualKey


class NotPermitted(Forbidden):
    """403: the key may not use this route or model."""

    def __init__(self, message: str, code: str, param: str = "model") -> None:
        super().__init__(message)
        self.code = code
        self.param = param


_CHOOSE_MODELS = ("models", "plugins", "preset", "route")
"""OpenRouter's: other models to ask, what is done to the request, and settings that are kept there."""
_SET_PRICES: Mapping[str, Sequence[Any]] = {
    "inference_geo": ("global",),
    "provider": (),
    "service_tier": ("auto", "default", "flex", "standard_only"),
    "speed": ("standard",),
    "web_search_options": (),
}
"""OpenAI's, Anthropic's and OpenRouter's, with the values that cost no more than usual."""


def permitted(plan: Plan, decision: Decision, key: VirtualKey, primary: Candidate) -> Plan:
    """The plan, without what the key may not use. Raises NotPermitted for what the client has named itself, and where
    nothing is left.

    A route permits all that answers it: ``xai`` all clouds of its chain, ``primary`` what is local, and a route of the
    owner's what is in its chain. Where nothing of a decision is left, ``primary`` answers, if the key permits that.
    """
    if decision.decided_by is DecidedBy.EXPLICIT:
        _check_named(plan, decision, key)
    searches = plan.wants_context and Route.ENRICH in key.routes
    kept = tuple(candidate for candidate in plan.candidates if _may_answer(candidate, plan, key))
    if not kept and decision.decided_by is not DecidedBy.EXPLICIT and Route.PRIMARY in key.routes:
        kept = (primary,)
    if not kept:
        raise NotPermitted(f"this key may not use the route '{plan.route}'", "route_not_allowed")
    if kept == plan.candidates and searches == plan.wants_context:
        return plan
    route = plan.route if kept[0] == plan.candidates[0] and searches == plan.wants_context else kept[0].backend.name
    note = f"the key does not permit {plan.route}" if route != plan.route else None
    notes = [one for one in (plan.note, note) if one]
    return replace(plan, candidates=kept, route=route, wants_context=searches, note="; ".join(notes) or None)


def check_route(route: str, key: VirtualKey | None, *, priced: bool = True) -> None:
    """Raises NotPermitted if the key may not use what is passed on without a decision; or if it has a budget and
    nobody knows what that costs (not ``priced``)."""
    if key is None:
        return
    if route not in key.routes:
        raise NotPermitted(f"this key may not use /v1/{route}", "route_not_allowed")
    if key.limits.has_budget and not priced:
        raise NotPermitted(f"this key has a budget, and what /v1/{route} costs is not known", "price_unknown")


def check_fields(fields: Mapping[str, Any], key: VirtualKey) -> None:
    """Raises NotPermitted for fields of a body by which a provider would do more than the key permits: ask other models
    (OpenRouter), or, with a budget, answer at another price than the known one (OpenAI, Anthropic)."""
    for name in _CHOOSE_MODELS:
        if fields.get(name):
            raise NotPermitted(f"'{name}' chooses models, which this key may not", "model_not_allowed", name)
    if not key.limits.has_budget:
        return
    for name, usual in _SET_PRICES.items():
        if fields.get(name) is not None and fields[name] not in usual:
            raise NotPermitted(f"this key has a budget, and what '{name}' costs is not known", "price_unknown", name)


def _check_named(plan: Plan, decision: Decision, key: VirtualKey) -> None:
    """Raises NotPermitted where the client has named what the key does not permit."""
    first = plan.candidates[0]
    is_route = decision.route in (Route.XAI, Route.ENRICH) or decision.route != first.backend.name
    if is_route and decision.model is None:
        if decision.route not in key.routes:
            raise NotPermitted(f"this key may not use the route '{decision.route}'", "route_not_allowed")
    elif not _may_answer(first, plan, key, named=True):
        raise NotPermitted(f"this key may not name the model '{first.full_name}'", "model_not_allowed")


def _may_answer(candidate: Candidate, plan: Plan, key: VirtualKey, *, named: bool = False) -> bool:
    if candidate.backend.local:
        return bool({Route.PRIMARY, plan.route} & key.routes) or key.may_name(candidate.full_name)
    if plan.route in key.routes - DEFAULT_ROUTES:
        return True
    return (Route.XAI in key.routes and not named) or key.may_name(candidate.full_name)
