"""From a decision to the candidates for the answer and their order. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from ai_router.errors import InvalidRequest
from ai_router.providers.catalogue import SEARCH, SEARXNG
from ai_router.providers.registry import Candidate, Registry
from ai_router.types import ChatRequest, DecidedBy, Decision, Label, Message, Route

_CHARS_PER_TOKEN = 6
"""A high estimate: a model is left out only if the request certainly does not fit into its context."""
_SHORT_CHARS = 12_000
"""No model of today has a context that is too small for so little."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked for the answer: ``candidates``, best first, and the route to report for the first of them.

    ``wants_context``: whether the web is searched before. ``note``: why the plan is not what was decided; None: it is.
    ``left_out``: who could not take the request, and why.
    """

    candidates: tuple[Candidate, ...]
    route: str
    wants_context: bool = False
    note: str | None = None
    left_out: tuple[tuple[Candidate, str], ...] = ()
    max_tokens: int | None = None
    """The most that the answer may have, by the owner's route; None: what the client says."""

    def route_for(self, candidate: Candidate) -> str:
        """The route to report for an answer by ``candidate``."""
        return self.route if candidate is self.candidates[0] else candidate.backend.name


def plan_answer(decision: Decision, registry: Registry, *, cloud_fallback: bool) -> Plan:
    """The plan for ``decision``: who is asked, and the fallbacks. ``cloud_fallback``: whether a local model may have
    fallbacks in the cloud.

    A client that named ``primary``, a provider or a model gets that or an error: a request for a local model must not
    reach a cloud without notice. ``xai`` and ``enrich`` are routes, so that the primary is their fallback; an owner's
    route has those of its chain.
    """
    if decision.decided_by is DecidedBy.EXPLICIT:
        return _named(decision, registry, cloud_fallback=cloud_fallback)
    if (own := _own(decision.route, registry, cloud_fallback=cloud_fallback)) is not None:
        return own
    chain = registry.chains.get(decision.label.lower())
    if chain is None:
        # A route of the owner's that a reload has taken away since.
        note = f"there is no route '{decision.route}' any more"
        return Plan(registry.chains[Label.MODERATE.lower()], Route.PRIMARY, note=note)
    if decision.label is Label.COMPLEX:
        return _complex(chain, registry)
    if decision.label is Label.ENRICH:
        return _enrich(chain, registry, cloud_fallback=cloud_fallback)
    return Plan(_allowed(chain, cloud_fallback=cloud_fallback), decision.route)


def primary_candidate(registry: Registry) -> Candidate:
    """The primary with its own model."""
    return Candidate(registry.primary, registry.primary.model)


def _named(decision: Decision, registry: Registry, *, cloud_fallback: bool) -> Plan:
    if decision.model is None and decision.route == Route.XAI:
        xai = registry.xai
        chain = registry.chains[Label.COMPLEX.lower()]
        local_fallbacks = tuple(candidate for candidate in chain if candidate.backend.local)
        candidates = ((Candidate(xai, xai.model),) if xai else ()) + local_fallbacks
        return _complex(candidates or (primary_candidate(registry),), registry)
    if decision.model is None and (own := _own(decision.route, registry, cloud_fallback=cloud_fallback)) is not None:
        return own
    if decision.route == Route.ENRICH:
        return _enrich(registry.chains[Label.ENRICH.lower()], registry, cloud_fallback=cloud_fallback)
    backend = registry.clouds.get(decision.route, registry.primary)
    return Plan((Candidate(backend, decision.model or backend.model),), decision.route)


def _own(route: str, registry: Registry, *, cloud_fallback: bool) -> Plan | None:
    """The plan for a route of the owner's; None if it is none. A reload may be under way."""
    described, chain = registry.catalogue.routes.get(route), registry.chains.get(route)
    if described is None or chain is None:
        return None
    return Plan(_allowed(chain, cloud_fallback=cloud_fallback), route, max_tokens=described.max_tokens)


def _complex(chain: tuple[Candidate, ...], registry: Registry) -> Plan:
    """The plan for COMPLEX. The route to report is the name of the first candidate."""
    first = chain[0].backend
    note = None
    if first is registry.primary and registry.xai is None:
        note = f"{Route.XAI} needs XAI_API_KEY; {_PRIMARY_INSTEAD}"
    return Plan(chain, first.name, note=note)


def _enrich(chain: tuple[Candidate, ...], registry: Registry, *, cloud_fallback: bool) -> Plan:
    allowed = _allowed(chain, cloud_fallback=cloud_fallback)
    if registry.searchers:
        return Plan(allowed, Route.ENRICH, wants_context=True)
    providers = registry.catalogue.providers
    names = registry.catalogue.chains.get(SEARCH, ())
    keys = ["SEARXNG_URL" if name == SEARXNG else providers[name].key for name in names]
    needed = " or ".join(key for key in keys if key) or "somebody to search the web"
    return Plan(allowed, allowed[0].backend.name, note=f"{Route.ENRICH} needs {needed}; {_PRIMARY_INSTEAD}")


def _allowed(chain: tuple[Candidate, ...], *, cloud_fallback: bool) -> tuple[Candidate, ...]:
    """Without ``cloud_fallback``, a chain that begins with a local backend has local ones only."""
    if cloud_fallback or not chain[0].backend.local:
        return chain
    return tuple(candidate for candidate in chain if candidate.backend.local)


_PRIMARY_INSTEAD = "the primary stands in"


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a candidate cannot take a request, and the field of the request that is the reason."""

    why: str
    param: str
    code: str = "unsupported_by_model"


def fitting(plan: Plan, request: ChatRequest) -> Plan:
    """The plan without the candidates that cannot take the request. Raises InvalidRequest if none can."""
    misfits = {candidate: found for candidate in plan.candidates if (found := misfit(candidate, request))}
    if not misfits:
        return plan
    kept = tuple(candidate for candidate in plan.candidates if candidate not in misfits)
    left_out = tuple((candidate, found.why) for candidate, found in misfits.items())
    first = plan.candidates[0]
    if first not in misfits:
        return replace(plan, candidates=kept, left_out=left_out)
    found = misfits[first]
    if not kept:
        message = f"{first.backend.name}: {found.why}, and nobody else may be asked"
        raise InvalidRequest(message, found.param, found.code)
    # Not the name of its first candidate, but a route: ENRICH, META, or an owner's.
    stays = plan.route != first.backend.name
    return replace(
        plan,
        candidates=kept,
        route=plan.route if stays else kept[0].backend.name,
        note="; ".join(note for note in (plan.note, f"{found.why}: {kept[0].backend.name} is asked") if note),
        left_out=left_out,
    )


def misfit(candidate: Candidate, request: ChatRequest) -> Misfit | None:
    """Why a candidate could not answer this request, as far as is known of its model; None: it could."""
    facts = candidate.backend.facts(candidate.model)
    if facts.context is not None and request.total_chars > facts.context * _CHARS_PER_TOKEN:
        return Misfit(
            f"{candidate.model} has room for {facts.context} tokens", "messages", code="context_length_exceeded"
        )
    if facts.capabilities is None:
        return None
    if "tools" not in facts.capabilities and has_tools(request):
        return Misfit(f"{candidate.model} takes no tools", "tools")
    if "vision" not in facts.capabilities and _has_images(request.messages):
        return Misfit(f"{candidate.model} sees no pictures", "messages")
    return None


def is_demanding(request: ChatRequest) -> bool:
    """Whether there are models that could not take the request: then it counts what a model can do."""
    return request.total_chars > _SHORT_CHARS or "tools" in request.params or _has_images(request.messages)


def has_tools(request: ChatRequest) -> bool:
    """Whether the request has tools; an empty list of them is none."""
    tools = request.params.get("tools")
    return bool(tools) and (not isinstance(tools, orjson.Fragment) or orjson.dumps(tools) != b"[]")


def _has_images(messages: Sequence[Message]) -> bool:
    return any(
        isinstance(part, Mapping) and part.get("type") in ("image_url", "input_image")
        for message in messages
        if isinstance(content := message.get("content"), list)
        for part in content
    )
