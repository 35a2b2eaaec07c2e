"""From a decision to who is asked, in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ai_router.exchange import DecidedBy, Decision, Route
from ai_router.execution.forward import Candidate
from ai_router.providers.registry import Registry


@dataclass(frozen=True, slots=True)
class Plan:
    """Candidates, best first; whether the web is searched before; and why it is not what was decided, if it is not."""

    candidates: tuple[Candidate, ...]
    route: str
    wants_context: bool = False
    note: str | None = None

    def route_for(self, candidate: Candidate) -> str:
        """The route to report for an answer by ``candidate``."""
        return self.route if candidate is self.candidates[0] else candidate.backend.name


def plan_answer(decision: Decision, registry: Registry, *, cloud_fallback: bool) -> Plan:
    """Who answers, and who if that one cannot.

    A client that named ``primary`` or a model gets that or an error: a local answer must not turn into a cloud one
    behind its back. ``xai`` and ``enrich`` name ways to a better answer, so the primary stands in for them.
    """
    explicit = decision.decided_by is DecidedBy.EXPLICIT
    primary = Candidate(registry.primary, decision.model or registry.primary.model)
    if decision.route in (Route.PRIMARY, Route.META):
        cloud = () if explicit or not cloud_fallback else _cloud(registry)
        return Plan((primary, *cloud), decision.route)
    if registry.xai is None:
        return Plan(
            (primary,), Route.PRIMARY, note=f"{decision.route} needs XAI_API_KEY, which is not set; {_STANDS_IN}"
        )
    if decision.route is Route.XAI:
        xai = Candidate(registry.xai, decision.model or registry.xai.model)
        return Plan((xai,) if decision.model else (xai, primary), Route.XAI)
    return Plan((primary, *(_cloud(registry) if cloud_fallback else ())), Route.ENRICH, wants_context=True)


_STANDS_IN = "the primary stands in"


def _cloud(registry: Registry) -> tuple[Candidate, ...]:
    return () if registry.xai is None else (Candidate(registry.xai, registry.xai.model),)
