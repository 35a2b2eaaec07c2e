"""What a request of a key with a budget may cost at most, and what of its plan the key can afford."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson

from ai_router.dispatch.most_tokens import most_input_tokens
from ai_router.dispatch.permission import NotPermitted
from ai_router.dispatch.plan import Plan
from ai_router.dispatch.token_limits import limit_in
from ai_router.errors import RouterError
from ai_router.providers.pricing import price_of
from ai_router.providers.registry import Candidate, Searcher
from ai_router.types import ChatRequest, DecidedBy, Decision, Route, Usage
from ai_router.virtual_key import AtLimit, VirtualKey

DEFAULT_LIMIT = 4096
"""Tokens of an answer, where the client sets no limit."""
_CACHE_CONTROL = b'"cache_control"'
_LARGEST_CONTEXT = 2_000_000
"""Tokens, of a model of which it is not known."""
_CONTEXT_BYTES = 24_000
"""What a web search adds at most (dispatch/web_search.py)."""

Reserve = Callable[[float], str]
"""Reserves USD. Returns the period whose budget does not suffice; "": it does."""


def affordable(
    plan: Plan,
    decision: Decision,
    request: ChatRequest,
    key: VirtualKey,
    searchers: Sequence[Searcher],
    reserve: Reserve,
    exhausted: Callable[[str], RouterError],
    primary: Candidate,
) -> Plan:
    """The plan, as far as the key's budgets suffice for the most that it can cost, which is reserved: the search and
    the first candidate. What a further candidate can cost is reserved when it is asked.

    A model or a search without a known price is left out, or refused where the client has named it. ``searchers``: all
    who may search. Raises NotPermitted, and what ``exhausted`` makes of a period.
    """
    priced = _priced(plan, decision, request, searchers)
    usd = most_usd(priced.candidates[0], request, priced) or 0.0
    if priced.wants_context:
        usd += sum(searcher.search.max_usd or 0.0 for searcher in searchers)
    period = reserve(usd) if usd > 0 else ""
    if not period:
        return priced
    local = tuple(candidate for candidate in priced.candidates if candidate.backend.local)
    if not local and decision.decided_by is not DecidedBy.EXPLICIT and Route.PRIMARY in key.routes:
        local = (primary,)
    if key.at_limit is AtLimit.LOCAL and local:
        note = f"the budget for the {period} is used up"
        return replace(priced, candidates=local, route=local[0].backend.name, wants_context=False, note=note)
    raise exhausted(period)


def _priced(plan: Plan, decision: Decision, request: ChatRequest, searchers: Sequence[Searcher]) -> Plan:
    """The plan without what has no known price."""
    kept = tuple(one for one in plan.candidates if most_usd(one, request, plan) is not None)
    searches = plan.wants_context and all(searcher.search.max_usd is not None for searcher in searchers)
    first = plan.candidates[0]
    named = decision.decided_by is DecidedBy.EXPLICIT and first not in kept
    if not kept or named:
        message = f"this key has a budget, and what '{first.full_name}' costs is not known"
        raise NotPermitted(message, "price_unknown")
    if kept == plan.candidates and searches == plan.wants_context:
        return plan
    route = plan.route if searches or not plan.wants_context else kept[0].backend.name
    note = plan.note or "what has no known price is left out for a key with a budget"
    return replace(plan, candidates=kept, route=route, wants_context=searches, note=note)


def most_usd(candidate: Candidate, request: ChatRequest, plan: Plan | None = None) -> float | None:
    """The most that one answer can cost; None: there is no price. ``plan``: says whether the web is searched before."""
    if candidate.backend.local:
        return 0.0
    facts, searches = candidate.backend.facts(candidate.model), _most_of_added_searches(candidate)
    if facts.price is None or searches is None:
        return None
    tokens = most_input_tokens(request, facts.context or _LARGEST_CONTEXT)
    tokens += _CONTEXT_BYTES if plan is not None and plan.wants_context else 0
    choices = request.params.get("n")
    output = (limit_in(request) or DEFAULT_LIMIT) * (choices if isinstance(choices, int) and choices > 0 else 1)
    written = tokens if _may_write_cache(request) else 0
    return price_of(Usage(tokens, output, cache_written_hour=written), facts.price) + searches


def _may_write_cache(request: ChatRequest) -> bool:
    """Whether it asks Anthropic's models to keep what they read, which costs up to twice as much."""
    fields = [*request.params.values(), *(request.client_form.fields.values() if request.client_form else ())]
    return _CACHE_CONTROL in request.messages_json or any(_CACHE_CONTROL in orjson.dumps(value) for value in fields)


def _most_of_added_searches(candidate: Candidate) -> float | None:
    """What searches can cost that the rules of the catalogue add to each request (Perplexity's); None: not known."""
    if not any("tools" in rule.add for rule in candidate.backend.rules(candidate.model)):
        return 0.0
    provider = candidate.backend.provider
    return None if provider is None or provider.search is None else provider.search.max_usd
