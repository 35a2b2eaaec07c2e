"""The way of a request: decide, speculate meanwhile, enrich if so decided, ask, relay."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from ai_router.dispatch.answers import Answer, StreamAnswer
from ai_router.dispatch.dispatcher import Dispatcher, RetryPolicy
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.plan import Plan, plan_answer, unfit
from ai_router.dispatch.record import RequestRecord
from ai_router.dispatch.reply import HeldReply, PlainReply, Reply, StreamReply
from ai_router.dispatch.speculating import SpeculationController
from ai_router.dispatch.speculation import SpeculativeCall
from ai_router.dispatch.waits import WaitDriver, Waiting
from ai_router.dispatch.web_search import WebSearch
from ai_router.errors import INTERNAL, InternalError, RouterError, UpstreamError
from ai_router.http.calls import CancelScope
from ai_router.observability import log_lines
from ai_router.providers.registry import Candidate, Registry
from ai_router.providers.shaping import with_context, with_date
from ai_router.resilience.limiter import Permit
from ai_router.routing.router import Router, Undecided
from ai_router.types import Decision, Purpose, Route, SpeculationResult

PATIENCE_BEFORE_HEADERS_S = 0.5
"""Waits that end sooner are told in the headers; after that they have to go, with the first comment."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What all requests share. Everything of one request is in its record and its scope."""

    registry: Registry
    router: Router
    forwarder: Forwarder
    search: WebSearch
    speculations: Executor
    speculation_controller: SpeculationController
    retry_policy: RetryPolicy
    cloud_fallback: bool
    keepalive_s: float

    def answer(self, record: RequestRecord, scope: CancelScope) -> Reply:
        """Decide and answer the record's request. Raises RouterError as long as the client has not seen a byte."""
        run = _Run(self, record, scope)
        try:
            return run.reply()
        except RouterError as error:
            record.fail(error)
            raise
        except Exception:  # the edge renders and logs it; here it must not be taken for the client's departure
            record.fail(InternalError(INTERNAL))
            raise
        finally:
            run.leave_nothing_behind()


class _Run:
    """One request on its way."""

    def __init__(self, pipeline: Pipeline, record: RequestRecord, scope: CancelScope) -> None:
        self._pipeline = pipeline
        self._request = record.request
        self._record = record
        self._scope = scope
        self._dispatcher = Dispatcher(pipeline.retry_policy, record, scope)
        self._speculation: SpeculativeCall | None = None
        self._decided_at = 0.0

    def reply(self) -> Reply:
        """All of it, up to the point where the client's first byte can go out."""
        driver = WaitDriver(self._waiting())
        if not self._request.stream:
            driver.run_for()
        elif not driver.run_for(PATIENCE_BEFORE_HEADERS_S):
            return HeldReply(self._record, driver, keepalive_s=self._pipeline.keepalive_s)
        answer = driver.result
        return (
            StreamReply(self._record, answer) if isinstance(answer, StreamAnswer) else PlainReply(self._record, answer)
        )

    def leave_nothing_behind(self) -> None:
        """Give up a speculative call that nobody came to take, because something was raised before."""
        if self._speculation is not None:
            self._lose(self._speculation)

    def _waiting(self) -> Waiting[Answer]:
        decision = self._decide()
        plan = plan_answer(decision, self._pipeline.registry, cloud_fallback=self._pipeline.cloud_fallback)
        self._record.decided(decision, route=plan.route, model=plan.candidates[0].model, note=plan.note)
        self._settle_speculation(plan)
        messages_json = self._messages(decision)
        if plan.wants_context:
            self._record.phase = "searching"
            context = yield from self._pipeline.search.fetch_context(self._record, self._scope, self._dispatcher)
            if context is not None:
                messages_json = with_context(self._request, context)
        return (yield from self._first_answer(plan, messages_json))

    def _lose(self, speculation: SpeculativeCall) -> None:
        speculation.cancel()
        self._pipeline.speculation_controller.lost(speculation.age_ms())

    def _decide(self) -> Decision:
        """The decision; where the classifier has to be asked, the speculative call goes along, if that is worth it."""
        pipeline, record = self._pipeline, self._record
        record.speculation = pipeline.speculation_controller.unless_begun
        found = pipeline.router.decide_at_once(self._request)
        if not isinstance(found, Undecided):
            return found
        permit = pipeline.speculation_controller.permit_for(found.guess)
        if permit is not None:
            primary = Candidate(pipeline.registry.primary, pipeline.registry.primary.model)
            forward = partial(pipeline.forwarder.forward_request, self._request, primary, with_date(self._request))
            call = self._scope.new_call(Purpose.SPECULATION)
            self._speculation = SpeculativeCall(pipeline.speculations, forward, call, permit)
        started = time.monotonic()
        new_call = partial(self._scope.new_call, Purpose.CLASSIFICATION)
        decision = pipeline.router.determine_route(self._request, found, new_call)
        self._decided_at = time.monotonic()
        log_lines.classified(decision)
        record.classified(decision, started)
        return decision

    def _settle_speculation(self, plan: Plan) -> None:
        """Keep the speculative call if it is the very call that the plan begins with; else give it up at once."""
        primary = self._pipeline.registry.primary
        keeps = not plan.wants_context and plan.candidates[0] == Candidate(primary, primary.model)
        if self._speculation is None or keeps:
            return
        self._lose(self._speculation)
        self._record.speculated(SpeculationResult.CANCELLED, self._speculation.started)
        log_lines.speculation_cancelled(plan.route)
        self._speculation = None

    def _messages(self, decision: Decision) -> bytes:
        """The messages to send. A chat UI's own jobs get no date, nor does a model that the client picked by name."""
        untouched = decision.route == Route.META or decision.model is not None
        return self._request.messages_json if untouched else with_date(self._request)

    def _first_answer(self, plan: Plan, messages_json: bytes) -> Waiting[Answer]:
        """The answer of the first candidate that gives one. Raises the first failure if none does."""
        first, *stand_ins = plan.candidates
        unfitting = {candidate: why for candidate in stand_ins if (why := unfit(candidate, self._request))}
        candidates = [first, *(candidate for candidate in stand_ins if candidate not in unfitting)]
        held = (self._speculation.started, self._speculation.permit) if self._speculation is not None else None

        def ask(candidate: Candidate, permit: Permit) -> Waiting[Answer]:
            yield from ()
            speculation, self._speculation = self._speculation, None
            self._record.phase = "asking"
            answer = self._ask(candidate, permit, messages_json, speculation)
            self._record.route = plan.route_for(candidate)
            self._take(answer, speculative=speculation is not None)
            return answer

        try:
            return (yield from self._dispatcher.first_success(candidates, ask, held))
        except UpstreamError:
            for candidate, why in unfitting.items():
                self._record.passed_over(candidate.backend.name, why)
            raise

    def _ask(
        self, candidate: Candidate, permit: Permit, messages_json: bytes, speculation: SpeculativeCall | None
    ) -> Answer:
        if speculation is None:
            forward = self._pipeline.forwarder.forward_request
            return forward(self._request, candidate, messages_json, self._scope.new_call(), permit)
        try:
            answer = speculation.confirm()
        except RouterError:
            self._record.speculated(SpeculationResult.CANCELLED, speculation.started)
            self._pipeline.speculation_controller.lost(speculation.age_ms())
            raise
        self._record.speculated(SpeculationResult.HIT, speculation.started)
        self._pipeline.speculation_controller.won((self._decided_at - speculation.started) * 1000, answer.attempt())
        return answer

    def _take(self, answer: Answer, *, speculative: bool) -> None:
        """This answer it is: say so in the log. A stream's attempt is recorded when it has ended."""
        self._record.phase = "streaming"
        attempt = answer.attempt()
        self._record.answered_by(attempt, speculative=speculative)
        log_lines.responded(dataclasses.replace(attempt, speculative=True) if speculative else attempt)
