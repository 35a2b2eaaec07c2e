"""The models that are offered to whoever asks for a list: those that may be named with their key. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from ai_router.dispatch.local_plan import kept_local
from ai_router.dispatch.permission import NotPermitted, permitted
from ai_router.dispatch.plan import plan_answer, primary_candidate
from ai_router.http.local_only import NotLocal
from ai_router.providers.names import ListedModel, explicit_decision, listing, resolve
from ai_router.providers.registry import AUTO, Registry
from ai_router.virtual_key import VirtualKey


def offered_models(registry: Registry, key: VirtualKey | None, today: date) -> Sequence[ListedModel]:
    """The list of ``listing``, without what the virtual ``key`` does not permit; None: whoever asks may name all."""
    every = listing(registry)
    return every if key is None else [model for model in every if _may_be_named(model.id, registry, key, today)]


def _may_be_named(model: str, registry: Registry, key: VirtualKey, today: date) -> bool:
    """Whether a request for this model would be refused neither for the key nor, with a budget, for want of a price."""
    named = resolve(registry, model, today)
    if named.route == AUTO:
        return True
    decision, primary = explicit_decision(model, named), primary_candidate(registry)
    try:
        plan = permitted(plan_answer(decision, registry, cloud_fallback=True), decision, key, primary)
        if key.local_only:
            kept_local(plan, decision, primary, "its key says so")
    except (NotPermitted, NotLocal):
        return False
    first = plan.candidates[0]
    return first.backend.local or not key.limits.has_budget or first.backend.facts(first.model).price is not None
