"""The models that are offered to whoever asks for a list: those that may be named with their key. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from ai_router.dispatch.local_plan import kept_local
from ai_router.dispatch.permission import NotPermitted, permitted
from ai_router.dispatch.plan import plan_answer, primary_candidate
from ai_router.http.local_only import NotLocal
from ai_router.providers.names import ListedModel, explicit_decision, listing, resolve
from ai_router.providers.registry import AUTO, Candidate, Registry
from ai_router.types import DecidedBy, Decision, Label, Route
from ai_router.virtual_key import AtLimit, VirtualKey


def offered_models(registry: Registry, key: VirtualKey | None, today: date) -> Sequence[ListedModel]:
    """The list of ``listing``, without what the virtual ``key`` does not permit; None: whoever asks may name all."""
    every = listing(registry, today)
    return every if key is None else [model for model in every if _may_be_named(model.id, registry, key, today)]


_PLAIN = Decision(Label.MODERATE, Route.PRIMARY, DecidedBy.DEFAULT, "an easy request")
"""What ``auto`` has to be good for at least."""


def _may_be_named(model: str, registry: Registry, key: VirtualKey, today: date) -> bool:
    """Whether a request for this model would be refused neither for the key nor, with a budget, for want of a price."""
    named = resolve(registry, model, today)
    if named.route == AUTO and "embeddings" in key.routes:
        return True
    decision = _PLAIN if named.route == AUTO else explicit_decision(model, named)
    plan, primary = plan_answer(decision, registry, cloud_fallback=True), primary_candidate(registry)
    try:
        if key.local_only:
            plan = kept_local(plan, decision, primary, "its key says so")
        plan = permitted(plan, decision, key, primary)
    except (NotPermitted, NotLocal):
        return False
    if not key.limits.has_budget:
        return True
    if 0 in (key.limits.daily_usd, key.limits.monthly_usd):
        costs = plan.wants_context and any(searcher.search.max_usd for searcher in registry.searchers)
        costs = costs or not plan.candidates[0].backend.local
        stays = key.at_limit is AtLimit.LOCAL and any(candidate.backend.local for candidate in plan.candidates)
        return stays or not costs
    # What is decided passes over those without a price; what is named does not.
    asked = plan.candidates if named.route == AUTO else plan.candidates[:1]
    return any(_has_price(candidate) for candidate in asked)


def _has_price(candidate: Candidate) -> bool:
    return candidate.backend.local or candidate.backend.facts(candidate.model).price is not None
