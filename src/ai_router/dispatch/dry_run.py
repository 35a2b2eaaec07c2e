"""A dry run as a document: what would be decided, who would be asked, what would leave, and what that would cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ai_router.dispatch.plan import Plan
from ai_router.dispatch.token_limits import capped, limit_in
from ai_router.providers.pricing import price_of
from ai_router.providers.registry import Candidate, Searcher
from ai_router.routing.head.model import Guess
from ai_router.routing.router import DryRun
from ai_router.routing.shown_ask import shown_ask
from ai_router.token_estimates import estimated_tokens
from ai_router.types import ChatRequest, LabelName, Usage

_TYPICAL_OUTPUT = 500
"""Tokens of an answer, where the client sets no limit."""


def dry_run_document(
    run: DryRun,
    plan: Plan,
    request: ChatRequest,
    searchers: Sequence[Searcher],
    scrub: Callable[[str], str] = str,
) -> dict[str, Any]:
    """The document of POST /v1/route and of ``ai-router route --json``.

    ``would_ask`` has those who would be asked in any case first: the searcher of ENRICH, then the first candidate;
    behind them those who would only stand in. ``note`` says why that is not the decision's route. ``cost_usd`` is an
    estimate, from four characters a token and the limit of the answer, else 500 tokens; None where a part of it has no
    known price. ``scrub`` takes known keys out of a text.
    """
    decision = run.decision
    searches = [searcher.candidate for searcher in searchers[:1]] if plan.wants_context else []
    certain = [*searches, plan.candidates[0]]
    return {
        "object": "route",
        "label": decision.label,
        "route": decision.route,
        "decided_by": decision.decided_by,
        "confidence": _rounded(decision.confidence),
        "reason": scrub(decision.reason),
        "note": plan.note,
        "runner_up": _runner_up(run.guess, decision.label),
        "ask": shown_ask(decision, scrub),
        "would_ask": [
            *(_asked(candidate, "search") for candidate in searches),
            _asked(plan.candidates[0], "answer"),
            *(_asked(candidate, "fallback") for candidate in plan.candidates[1:]),
        ],
        "leaves": any(not candidate.backend.local for candidate in certain),
        "cost_usd": None if searches else estimated_usd(plan.candidates[0], _as_sent(plan, request)),
        "warning": decision.warning,
    }


def _as_sent(plan: Plan, request: ChatRequest) -> ChatRequest:
    """The request with the limit of the owner's route."""
    return request if plan.max_tokens is None else capped(request, plan.max_tokens)


def _asked(candidate: Candidate, purpose: str) -> Mapping[str, Any]:
    backend = candidate.backend
    return {"backend": backend.name, "model": candidate.model, "local": backend.local, "for": purpose}


def _runner_up(guess: Guess | None, label: LabelName) -> Mapping[str, Any] | None:
    """The likeliest other label, as the head sees it; None where the head was not asked."""
    others = {} if guess is None else {other: share for other, share in guess.probabilities.items() if other != label}
    if not others:
        return None
    best = max(others, key=lambda other: others[other])
    return {"label": best, "confidence": _rounded(others[best])}


def estimated_usd(candidate: Candidate, request: ChatRequest) -> float | None:
    """What an answer would cost, at four characters a token and the limit of the answer, else 500 tokens; None: the
    price is not known."""
    if candidate.backend.local:
        return 0.0
    price = candidate.backend.facts(candidate.model).price
    if price is None:
        return None
    limit = limit_in(request)
    usage = Usage(estimated_tokens(request.total_chars), _TYPICAL_OUTPUT if limit is None else limit)
    return round(price_of(usage, price), 6)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
