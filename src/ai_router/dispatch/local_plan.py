"""What of a plan is local: all that a local-only request may be answered by. No I/O.

That nothing leaves does not depend on this: calls of such a request connect to local addresses alone
(http/local_only.py). This says it before, in words that help.
"""

from __future__ import annotations

from dataclasses import replace

from ai_router.dispatch.plan import Plan
from ai_router.http.local_only import NotLocal
from ai_router.providers.registry import Candidate
from ai_router.types import DecidedBy, Decision


def kept_local(plan: Plan, decision: Decision, primary: Candidate, why: str, *, searches: bool = False) -> Plan:
    """The plan without clouds and without a search; the primary where nothing is left. ``why`` it is local-only.
    ``searches``: whether its ``tool_choice`` asks for a web search.

    Raises NotLocal where the client has named what is not local.
    """
    first = plan.candidates[0]
    if decision.decided_by is DecidedBy.EXPLICIT and (plan.wants_context or not first.backend.local):
        what, param = ("a web search", "tool_choice") if searches else (f"'{plan.route}'", "model")
        raise NotLocal(f"{what} is not local, and this request is local-only: {why}", param)
    kept = tuple(candidate for candidate in plan.candidates if candidate.backend.local) or (primary,)
    if kept == plan.candidates and not plan.wants_context:
        return plan
    changed = plan.wants_context or kept[0] != first
    notes = [plan.note, f"local-only: {plan.route} would leave the local network" if changed else None]
    return replace(
        plan,
        candidates=kept,
        route=kept[0].backend.name if changed else plan.route,
        wants_context=False,
        note="; ".join(note for note in notes if note) or None,
    )
