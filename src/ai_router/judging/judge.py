"""Judging a local answer: the cloud is asked the same, and a judge which answer is better. Within a budget.

The most that this can cost is reserved in the database before anybody is asked, and corrected afterwards to what it has
cost. A cost that nobody knows stays at the most. So the budget of a month is never exceeded, whichever processes share
it, and whatever becomes of them.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from ai_router.apis import Additions
from ai_router.config import Settings
from ai_router.dispatch.budget import DEFAULT_LIMIT, most_usd
from ai_router.dispatch.token_limits import capped, limit_in
from ai_router.errors import RouterError
from ai_router.http.calls import CancelScope
from ai_router.judging.asking import Asker, PaidCall, Reply
from ai_router.judging.cases import Case
from ai_router.judging.comparing import ANSWER_BYTES, Winner, contradict, judge_messages, winner_of, word_in
from ai_router.providers.chat_completions import web_context, with_additions
from ai_router.providers.registry import Candidate, Registry
from ai_router.storage.lazy_store import lazy_judgements
from ai_router.storage.usage_rows import Rows, egress_row, row_id_of
from ai_router.types import CallCost, ChatRequest, Label, Message, Purpose

if TYPE_CHECKING:
    from ai_router.storage.judgements import JudgementStore

log = logging.getLogger(__name__)

_JUDGE_TOKENS = 2_048
"""A judge that thinks needs some; the word is one."""


class NotJudged(Exception):
    """Why nobody was asked. Not shown to clients."""


class BudgetUsedUp(NotJudged):
    """What is left of the month's budget does not suffice for the most that the next judgement can cost."""


@dataclass(frozen=True, slots=True)
class Result:
    """A judgement that was made. ``usd``: what it cost; None: nobody knows all of it. ``problem``: why there is no
    winner; None: there is one."""

    case: Case
    winner: Winner
    contradicted: bool
    usd: float | None
    problem: str | None
    calls: Sequence[PaidCall] = ()


@dataclass(slots=True)
class Judge:
    """``store``: the open database; it may raise StoreUnavailable. ``put_rows`` gets the rows of the calls that left
    the local network. ``scope``: of the call under way; None: there is none. Not for several threads at once."""

    registry: Registry
    asker: Asker
    store: Callable[[], JudgementStore]
    budget_usd: float
    keep_days: int
    put_rows: Callable[[Rows], None]
    is_local: Callable[[str], bool]
    scope: CancelScope | None = None
    _stopped: RouterError | None = field(default=None)

    def abort(self, reason: RouterError) -> None:
        """Abort the call under way; no further one is made. From any thread."""
        self._stopped = reason
        if (scope := self.scope) is not None:
            scope.abort(reason)

    def judge(self, case: Case) -> Result:
        """Ask the cloud and the judge. Raises NotJudged where nobody was asked, and StoreUnavailable."""
        judge, cloud = self.registry.judge, shadow_candidate(self.registry)
        if judge is None or cloud is None:
            raise NotJudged("there is no judge, or no cloud to compare with")
        request = _shadow_request(case, cloud)
        most = _most(case, request, cloud, judge)
        if most is None:
            raise NotJudged(f"what {_named(cloud)} or {_named(judge)} costs is not known, and there is a budget")
        values = {"session_id": case.session_id, "route": case.route, "local": case.answered_by}
        values |= {"cloud": _named(cloud), "judge": _named(judge)}
        reserved = self.store().reserve(values, most, self.budget_usd, self.keep_days)
        if reserved is None:
            raise BudgetUsedUp(f"the budget of {self.budget_usd:g} USD does not suffice for another {most:.4f} USD")
        result = self._compare(case, request, cloud, judge)
        self._put_rows(case, reserved, result.calls)
        self.store().settle(reserved, result.winner, contradicted=result.contradicted, usd=result.usd)
        return result

    def _compare(self, case: Case, request: ChatRequest, cloud: Candidate, judge: Candidate) -> Result:
        shadow = self._ask(request, cloud, Purpose.SHADOW, _additions(case))
        if shadow.text is None:
            return _result(case, [shadow])
        words, replies = list[str | None](), [shadow]
        for answers in ((case.answer, shadow.text), (shadow.text, case.answer)):
            messages = judge_messages(case.messages, *answers)
            reply = self._ask(_judge_request(case, judge, messages), judge, Purpose.JUDGEMENT, Additions())
            replies.append(reply)
            words.append(None if reply.text is None else word_in(reply.text))
            if words[-1] is None:
                return _result(case, replies)
        return _result(case, replies, winner_of(*words), contradicted=contradict(*words))

    def _ask(self, request: ChatRequest, candidate: Candidate, purpose: Purpose, additions: Additions) -> Reply:
        return self.asker.ask(request, candidate, purpose, additions, self._take_scope)

    def _take_scope(self, scope: CancelScope) -> None:
        self.scope = scope
        if self._stopped is not None:
            scope.abort(self._stopped)

    def _put_rows(self, case: Case, judgement: str, calls: Sequence[PaidCall]) -> None:
        """What has left the local network counts for the request whose words they were."""
        now, row_id = datetime.now(UTC), row_id_of(case.timestamp, case.session_id)
        common = {"at": now.timestamp(), "day": f"{now:%Y-%m-%d}"}
        common |= {"client": case.client, "organization": case.organization}
        left = [call for call in calls if not self.is_local(call.traffic.backend)]
        rows = [
            egress_row(row_id, f"j{judgement[:8]}{number}", common, call.traffic, _cost(call))
            for number, call in enumerate(left, 1)
        ]
        if rows:
            self.put_rows(Rows(None, rows))


def build_judge(
    settings: Settings,
    registry: Registry,
    asker: Asker,
    is_local: Callable[[str], bool],
    put_rows: Callable[[Rows], None],
    closing: ExitStack,
) -> Judge:
    """The judge of these settings, on the database of usage."""
    judgements = lazy_judgements(settings.usage_database)
    closing.callback(judgements.close)
    budget_usd, keep_days = settings.judge_budget_usd, settings.usage_days
    return Judge(registry, asker, judgements.store, budget_usd, keep_days, put_rows, is_local)


def shadow_candidate(registry: Registry) -> Candidate | None:
    """The cloud whose answers local ones are compared with: the first that answers COMPLEX. None: there is none."""
    chain = registry.chains[Label.COMPLEX.lower()]
    return next((candidate for candidate in chain if not candidate.backend.local), None)


def _result(
    case: Case, replies: Sequence[Reply], winner: Winner = Winner.NONE, *, contradicted: bool = False
) -> Result:
    calls = [call for reply in replies for call in reply.calls]
    costs = [call.usd for call in calls]
    known = [usd for usd in costs if usd is not None]
    problem, last = None, replies[-1]
    if winner is Winner.NONE:
        problem = str(last.problem) if last.problem is not None else "an answer without a text, or without a verdict"
    return Result(case, winner, contradicted, sum(known) if len(known) == len(costs) else None, problem, calls)


def _shadow_request(case: Case, cloud: Candidate) -> ChatRequest:
    request = _request(case, cloud, case.messages, case.params or {})
    return capped(request, min(limit_in(request) or DEFAULT_LIMIT, DEFAULT_LIMIT))


def _judge_request(case: Case, judge: Candidate, messages: Sequence[Message]) -> ChatRequest:
    return capped(_request(case, judge, messages, {}), _JUDGE_TOKENS)


def _request(case: Case, candidate: Candidate, messages: Sequence[Message], params: Mapping[str, Any]) -> ChatRequest:
    return ChatRequest(
        request_id=f"judge-{secrets.token_hex(8)}",
        session_id=case.session_id,
        timestamp=datetime.now(UTC),
        arrived_at=time.monotonic(),
        model=_named(candidate),
        stream=False,
        messages=messages,
        messages_json=orjson.dumps(messages),
        params=params,
        date_context=case.date_context,
        total_chars=0,
    )


def _additions(case: Case) -> Additions:
    """What the local model was told beside the conversation."""
    return Additions(case.date_context, "" if case.context is None else web_context(case.context))


def _most(case: Case, request: ChatRequest, cloud: Candidate, judge: Candidate) -> float | None:
    """The most that all three calls can cost in USD; None: there is no price for one of them."""
    whole = replace(request, messages_json=with_additions(request, _additions(case)))
    judged = _judge_request(case, judge, judge_messages(case.messages, case.answer, ""))
    judged = replace(judged, messages_json=judged.messages_json + b" " * ANSWER_BYTES)
    answer, judgement = most_usd(cloud, whole), most_usd(judge, judged)
    return None if answer is None or judgement is None else answer + 2 * judgement


def _named(candidate: Candidate) -> str:
    return f"{candidate.backend.name}/{candidate.model}"


def _cost(call: PaidCall) -> CallCost | None:
    return None if call.usage is None else CallCost(call.usage, call.usd)
