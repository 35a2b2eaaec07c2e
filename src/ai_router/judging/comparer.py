"""Judging a local answer: the cloud is asked the same, and a judge which answer is better. Within a budget.

The most that this can cost is reserved in the database before anybody is asked, and corrected afterwards to what it has
cost. A cost that nobody knows stays at the most. So the budget of a month holds, whichever processes share it, and
whatever becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ai_router.apis import Additions
from ai_router.config import SessionBodies, Settings
from ai_router.errors import RouterError, UpstreamError
from ai_router.http.calls import CancelScope
from ai_router.judging.calling import ModelCaller, PaidCall, Reply
from ai_router.judging.cases import Case
from ai_router.judging.comparing import Winner, contradict, preference_in, winner_of
from ai_router.judging.requests import additions_of, cloud_request, judge_request, most_of_all
from ai_router.observability.redaction import kept_error
from ai_router.providers.registry import Candidate, Registry
from ai_router.storage.lazy_store import lazy_judgements
from ai_router.storage.usage_rows import Rows, egress_row, row_id_of
from ai_router.types import CallCost, ChatRequest, Label, Purpose

if TYPE_CHECKING:
    from ai_router.storage.judgements import JudgementStore


class NotJudged(Exception):
    """Why nobody was asked. Not shown to clients."""


class BudgetUsedUp(NotJudged):
    """What is left of the month's budget does not suffice for the most that the next judgement can cost."""


@dataclass(frozen=True, slots=True)
class Result:
    """A judgement that was made. ``usd``: what it cost; None: nobody knows all of it. ``problem``: why there is no
    winner; None: there is one."""

    winner: Winner
    contradicted: bool = False
    usd: float | None = None
    problem: str | None = None


@dataclass(slots=True)
class Comparer:
    """``store``: the open database; it may raise StoreUnavailable. ``put_rows`` gets the rows of the calls that left
    the local network. ``bodies``: what may be kept of errors that quote. ``scope``: of the call under way; None: there
    is none. Not for several threads at once."""

    registry: Registry
    caller: ModelCaller
    store: Callable[[], JudgementStore]
    budget_usd: float
    keep_days: int
    bodies: SessionBodies
    put_rows: Callable[[Rows], None]
    is_local: Callable[[str], bool]
    scope: CancelScope | None = None
    _stopped: RouterError | None = field(default=None)

    def abort(self, reason: RouterError) -> None:
        """Abort the call under way; no further one is made. From any thread."""
        self._stopped = reason
        if (scope := self.scope) is not None:
            scope.abort(reason)

    def takes(self, case: Case) -> bool:
        """Whether a cloud may answer requests of its route. An owner's route may be for local backends alone."""
        if case.route not in self.registry.catalogue.routes:
            return True
        return any(not candidate.backend.local for candidate in self.registry.chains.get(case.route, ()))

    def compare(self, case: Case) -> Result:
        """Ask the cloud and the judge. Raises NotJudged where nobody was asked, and StoreUnavailable."""
        judge, cloud = self.registry.judge, cloud_candidate(self.registry)
        if judge is None or cloud is None:
            raise NotJudged("there is no judge, or no cloud to compare with")
        most = most_of_all(case, cloud, judge)
        if most is None:
            raise NotJudged(f"what {cloud.full_name} or {judge.full_name} costs is not known, and there is a budget")
        values = {"session_id": case.session_id, "route": case.route, "local": case.answered_by}
        values |= {"cloud": cloud.full_name, "judge": judge.full_name}
        reserved = self.store().reserve(values, most, self.budget_usd, self.keep_days)
        if reserved is None:
            raise BudgetUsedUp(f"the budget of {self.budget_usd:g} USD does not suffice for another {most:.4f} USD")
        comparison = _Comparison(self, case, reserved)
        result = comparison.run(cloud, judge)
        if not comparison.calls:
            self.store().forget(reserved)
            raise NotJudged(result.problem or "nobody could be asked")
        self.store().settle(reserved, result.winner, contradicted=result.contradicted, usd=result.usd)
        return result

    def ask(self, request: ChatRequest, candidate: Candidate, purpose: Purpose, additions: Additions) -> Reply:
        """One call, which ``abort`` ends."""
        return self.caller.ask(request, candidate, purpose, additions, self._take_scope)

    def _take_scope(self, scope: CancelScope) -> None:
        self.scope = scope
        if self._stopped is not None:
            scope.abort(self._stopped)


class _Comparison:
    """The calls for one case. What leaves is told after each of them."""

    def __init__(self, comparer: Comparer, case: Case, judgement: str) -> None:
        self._comparer = comparer
        self._case = case
        self._judgement = judgement
        self.calls: list[PaidCall] = []

    def run(self, cloud: Candidate, judge: Candidate) -> Result:
        case = self._case
        other = self._ask(cloud_request(case, cloud), cloud, Purpose.SHADOW, additions_of(case))
        if other.text is None:
            return self._without_winner(other)
        words = list[str | None]()
        for answers in ((case.answer, other.text), (other.text, case.answer)):
            reply = self._ask(judge_request(case, judge, *answers), judge, Purpose.JUDGEMENT, Additions())
            words.append(None if reply.text is None else preference_in(reply.text))
            if words[-1] is None:
                return self._without_winner(reply)
        return Result(winner_of(*words), contradict(*words), self._usd())

    def _ask(self, request: ChatRequest, candidate: Candidate, purpose: Purpose, additions: Additions) -> Reply:
        reply = self._comparer.ask(request, candidate, purpose, additions)
        self.calls += reply.calls
        left = [call for call in reply.calls if not self._comparer.is_local(call.traffic.backend)]
        if left:
            self._comparer.put_rows(
                Rows(None, _egress_rows(self._case, f"j{self._judgement[:8]}{len(self.calls)}", left))
            )
        return reply

    def _without_winner(self, reply: Reply) -> Result:
        problem = "an answer without a verdict"
        if isinstance(reply.problem, UpstreamError):
            problem = kept_error(reply.problem, self._comparer.bodies)
        elif reply.problem is not None:
            problem = str(reply.problem)
        return Result(Winner.NONE, usd=self._usd(), problem=problem)

    def _usd(self) -> float | None:
        known = [call.usd for call in self.calls if call.usd is not None]
        return sum(known) if len(known) == len(self.calls) else None


def _egress_rows(case: Case, number: str, calls: Sequence[PaidCall]) -> list[dict[str, object]]:
    """What has left the local network counts for the request whose words they were."""
    now, row_id = datetime.now(UTC), row_id_of(case.timestamp, case.session_id)
    common = {"at": now.timestamp(), "day": f"{now:%Y-%m-%d}"}
    common |= {"client": case.client, "organization": case.organization}
    return [egress_row(row_id, number, common, call.traffic, _cost(call)) for call in calls]


def _cost(call: PaidCall) -> CallCost | None:
    return None if call.usage is None else CallCost(call.usage, call.usd)


def build_comparer(
    settings: Settings,
    registry: Registry,
    caller: ModelCaller,
    is_local: Callable[[str], bool],
    put_rows: Callable[[Rows], None],
    closing: ExitStack,
) -> Comparer:
    """What compares answers, by these settings, with the database of usage."""
    judgements = lazy_judgements(settings.usage_database)
    closing.callback(judgements.close)
    return Comparer(
        registry,
        caller,
        judgements.store,
        budget_usd=settings.judge_budget_usd,
        keep_days=settings.usage_days,
        bodies=settings.session_bodies,
        put_rows=put_rows,
        is_local=is_local,
    )


def cloud_candidate(registry: Registry) -> Candidate | None:
    """The cloud whose answers local ones are compared with: the first that answers COMPLEX. None: there is none."""
    chain = registry.chains[Label.COMPLEX.lower()]
    return next((candidate for candidate in chain if not candidate.backend.local), None)
