"""Deciding stored sessions again by another policy: what would have changed in route, latency and cost. Pure.

Latency and cost of what did not happen are estimates. A session that changes its route takes, and costs, the median of
the sessions that took that route. One that keeps its route is spared the classifier's time, if it had to wait for it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ai_router.learning.examples import StoredSession
from ai_router.routing.head.model import Guess
from ai_router.types import DecidedBy, Label, route_of


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What a policy decides: the label, and whether the classifier has to be asked for it."""

    label: Label
    asks_classifier: bool


Policy = Callable[[StoredSession], PolicyDecision]
GuessOf = Callable[[StoredSession], Guess]


def policy_named(name: str, guess_of: GuessOf) -> Policy:
    """``recorded``, ``cascade`` (the head where it is sure, else as recorded), ``cascade:0.95`` (sure from there on),
    ``head`` (never the classifier), ``classifier`` (always), ``primary``. Raises ValueError for another name."""
    kind, _, limit = name.partition(":")
    if limit and kind != "cascade":
        raise ValueError(f"only cascade takes a confidence, not {name!r}")
    try:
        least = float(limit) if limit else None
    except ValueError:
        raise ValueError(f"the confidence in {name!r} is no number") from None

    def cascade(session: StoredSession) -> PolicyDecision:
        guess = guess_of(session)
        sure = guess.sure if least is None else guess.confidence >= least
        return PolicyDecision(guess.label, False) if sure else PolicyDecision(session.label, True)

    policies: Mapping[str, Policy] = {
        "recorded": lambda session: PolicyDecision(session.label, session.decided_by is DecidedBy.CLASSIFIER),
        "cascade": cascade,
        "head": lambda session: PolicyDecision(guess_of(session).label, False),
        "classifier": lambda session: PolicyDecision(session.label, True),
        "primary": lambda _: PolicyDecision(Label.MODERATE, False),
    }
    if kind not in policies:
        raise ValueError(f"no policy {name!r}; there are {', '.join(policies)} and cascade:CONFIDENCE")
    return policies[kind]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The sessions as they were and as a policy would have decided them.

    Times are medians of milliseconds until the first byte of the answer (streams) or its end (plain answers). The names
    of the fields are the keys of ``replay --json``. ``agreed``: the share that keeps its route. ``asked`` and
    ``asked_before``: how often the classifier would be, and was, asked.
    """

    sessions: int
    moved: Mapping[tuple[str, str], int]
    """How many sessions go from one route to another, or keep theirs."""
    agreed: float
    asked: int
    asked_before: int
    before_ms: float | None
    after_ms: float | None
    before_usd: float
    after_usd: float


def replay(sessions: Iterable[StoredSession], policy: Policy) -> ReplayReport:
    """Decide all sessions again. Those that ended in an error count for routes, not for times."""
    stored = list(sessions)
    typical_ms = _medians((session.route, _backend_ms(session)) for session in stored)
    typical_usd = _medians((session.route, session.cost_usd) for session in stored)
    typical_classification = _median([c for s in stored if (c := s.timings.get("classification_ms")) is not None])
    moved: Counter[tuple[str, str]] = Counter()
    before_ms, after_ms, before_usd, after_usd, asked = [], [], 0.0, 0.0, 0
    for session in stored:
        decision = policy(session)
        route, new_route = session.route, str(route_of(decision.label))
        stays = decision.label == session.label
        asked += decision.asks_classifier
        moved[route, route if stays else new_route] += 1
        before_usd += session.cost_usd or 0.0
        after_usd += (session.cost_usd or 0.0) if stays else typical_usd.get(new_route, 0.0)
        waited = _client_wait_ms(session)
        answer = _backend_ms(session) if stays else typical_ms.get(new_route)
        if waited is not None and answer is not None:
            classification_ms = session.timings.get("classification_ms", typical_classification or 0.0)
            before_ms.append(waited)
            asking_ms = classification_ms if decision.asks_classifier else 0.0
            estimate = _estimated_wait_ms(route if stays else new_route, answer, asking_ms)
            after_ms.append(max(0.0, waited + estimate - _recorded_estimate_ms(session)))
    return ReplayReport(
        sessions=len(stored),
        moved=dict(moved),
        agreed=sum(n for (route, new_route), n in moved.items() if route == new_route) / len(stored) if stored else 1.0,
        asked=asked,
        asked_before=sum(session.decided_by is DecidedBy.CLASSIFIER for session in stored),
        before_ms=_median(before_ms),
        after_ms=_median(after_ms),
        before_usd=before_usd,
        after_usd=after_usd,
    )


def _estimated_wait_ms(route: str, answer_ms: float, classification_ms: float) -> float:
    """A speculative primary call runs beside the classifier; every other route waits for it first."""
    return max(answer_ms, classification_ms) if route == "primary" else answer_ms + classification_ms


def _recorded_estimate_ms(session: StoredSession) -> float:
    """What the same estimate makes of a session as it was; what the client waited beyond that stays."""
    asked = session.decided_by is DecidedBy.CLASSIFIER
    classification_ms = session.timings.get("classification_ms", 0.0) if asked else 0.0
    return _estimated_wait_ms(session.route, _backend_ms(session) or 0.0, classification_ms)


def _client_wait_ms(session: StoredSession) -> float | None:
    """How long the client waited; None if the session did not end well."""
    if session.status != "ok":
        return None
    return session.timings.get("ttft_ms" if session.stream else "total_ms")


def _backend_ms(session: StoredSession) -> float | None:
    """The backends' time, without the classifier's; None if the session did not end well."""
    if session.status != "ok":
        return None
    search = session.timings.get("enrichment_ms", 0.0)
    answer = session.timings.get("upstream_ms") if session.stream else session.timings.get("inference_ms")
    return None if answer is None else search + answer


def _medians(pairs: Iterable[tuple[str, float | None]]) -> Mapping[str, float]:
    values: dict[str, list[float]] = {}
    for name, value in pairs:
        if value is not None:
            values.setdefault(name, []).append(value)
    return {name: statistics.median(found) for name, found in values.items()}


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
