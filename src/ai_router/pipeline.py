"""The way of a request: decide, speculate meanwhile, enrich if so decided, dispatch, respond.

``Pipeline.answer`` is called on the request's thread. It returns when the answer is here, whole or with its first
event. A stream that still has to wait for a busy backend or for the web search, half a second after its start, gets its
reply all the same: the headers go out, comments follow, and the answer comes later. Asking the classifier and a backend
itself is no such wait: until the first event nothing is sent, so that a failure keeps its status. ``_Request.answer``
is the way from the decision to the answer, top to bottom. Each step is in a module of its own:

    admit       web/access.py, chat.py     keys, limits, validation; the client's disconnect aborts the request's scope
    decide      routing/router.py          who answers: MODERATE, COMPLEX, ENRICH, META, or what the client named; often
                                           at once (``decide_at_once``) or by the head's encoder, else the classifier
    speculate   dispatch/speculation.py    the primary is called already while the classifier thinks
    plan        dispatch/plan.py           the decision as candidates, best first, of those that the key permits
    enrich      dispatch/web_search.py     ENRICH: the web is searched, and what it says put into the messages
    dispatch    dispatch/dispatcher.py     who is asked, again, instead, after what wait
    forward     dispatch/forward.py        one call of one candidate
    respond     dispatch/reply.py          the answer on its way to the client
    relay       server/stream_relay.py     the rest of a stream, sent by the event loop's thread
    record      dispatch/record.py         what happened; web/chat.py closes it with the response, for log and session
"""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from ai_router.apis import Additions
from ai_router.dispatch.answer import Answer, StreamAnswer
from ai_router.dispatch.budget import DEFAULT_LIMIT, affordable, most_usd
from ai_router.dispatch.citations import citing, sources_of
from ai_router.dispatch.dispatcher import Dispatcher, RetryPolicy, WaitDriver, Waiting
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.local_plan import kept_local
from ai_router.dispatch.models_in_memory import ModelsInMemory
from ai_router.dispatch.permission import permitted
from ai_router.dispatch.plan import Plan, fitting, is_demanding, misfit, plan_answer, primary_candidate
from ai_router.dispatch.primary_facts import PrimaryFacts
from ai_router.dispatch.record import RequestRecord
from ai_router.dispatch.reply import PlainReply, Reply, StreamReply
from ai_router.dispatch.speculation import SpeculationController, SpeculativeCall
from ai_router.dispatch.token_limits import capped, with_token_limit
from ai_router.dispatch.web_search import WebSearch
from ai_router.errors import (
    INTERNAL,
    InternalError,
    RaisedLimitRefused,
    RouterError,
    UpstreamError,
    UpstreamUnavailable,
)
from ai_router.http.calls import CancelScope
from ai_router.keys.admission import Admission
from ai_router.observability import log_lines
from ai_router.providers.chat_completions import web_context
from ai_router.providers.registry import CLASSIFIER, Candidate, Registry
from ai_router.resilience.limiter import Permit
from ai_router.routing.fast_path import Undecided
from ai_router.routing.first_words import FIRST_CHARS, first_words
from ai_router.routing.router import Router
from ai_router.token_estimates import estimated_tokens
from ai_router.types import ChatRequest, DecidedBy, Decision, Purpose, Route, SpeculationResult
from ai_router.virtual_key import VirtualKey

WAIT_BEFORE_HEADERS_S = 0.5
"""From the start of ``Pipeline.answer``. Waits that end sooner are told in the headers; later ones in comments."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What all requests share. What belongs to one request is in its ``_Request``, its record and its scope."""

    registry: Registry
    router: Router
    forwarder: Forwarder
    primary_facts: PrimaryFacts
    search: WebSearch
    speculations: Executor
    speculation_controller: SpeculationController
    retry_policy: RetryPolicy
    cloud_fallback: bool
    keepalive_s: float
    admission: Admission
    memory: ModelsInMemory
    speculates_beside_head: bool
    """Whether to speculate while the head's encoder thinks; not where the primary needs the same processor."""
    heeds_first_words: bool = False
    """Whether what the primary has said meanwhile may change the classifier's decision."""

    def plan(self, decision: Decision, request: ChatRequest, *, demanding: bool) -> Plan:
        """Who is asked of those who may be. ``demanding``: as of is_demanding. Raises RouterError if there are none."""
        plan = plan_answer(decision, self.registry, cloud_fallback=self.cloud_fallback)
        if self.memory.urls and decision.decided_by is not DecidedBy.EXPLICIT:
            plan = self.memory.prefer(plan, decision.label)
        if request.local_only:
            primary = primary_candidate(self.registry)
            plan = kept_local(plan, decision, primary, request.local_only, searches=request.searches)
        if demanding:
            plan = fitting(plan, request)
        return plan if request.key is None else permitted(plan, decision, request.key, primary_candidate(self.registry))

    def answer(self, record: RequestRecord, scope: CancelScope) -> Reply:
        """Decide and answer the record's request. Raises RouterError as long as the client has not seen a byte."""
        request = _Request(self, record, scope)
        try:
            driver = WaitDriver(request.answer())
            if not record.request.stream:
                driver.run_for()
            elif not driver.run_for(WAIT_BEFORE_HEADERS_S):
                # The headers go out; what is waited for is told in comments, and the answer follows.
                return StreamReply(record, driver=driver, keepalive_s=self.keepalive_s)
            answer = driver.result
            return StreamReply(record, answer) if isinstance(answer, StreamAnswer) else PlainReply(record, answer)
        except RouterError as error:
            record.fail(error)
            raise
        except Exception:  # the edge renders and logs it; here it must not be taken for the client's departure
            record.fail(InternalError(INTERNAL))
            raise
        finally:
            request.give_up_speculation()


class _Request:
    """One request on its way."""

    def __init__(self, pipeline: Pipeline, record: RequestRecord, scope: CancelScope) -> None:
        self._pipeline = pipeline
        self._request = record.request
        self._record = record
        if record.request.key is not None:
            self._begin_admitting(record.request, record.request.key)
        self._scope = scope
        self._dispatcher = Dispatcher(pipeline.retry_policy, record, scope)
        self._speculation: SpeculativeCall | None = None
        self._decided_at = 0.0
        self._is_demanding = is_demanding(record.request)
        self._raises_limit = True
        """Whether the primary's limit of tokens may be raised; not once it has refused that."""

    def answer(self) -> Waiting[Answer]:
        """The answer, with a stop at each wait. Raises RouterError."""
        pipeline, record = self._pipeline, self._record
        decision = self._decide()
        if decision.warning is None and (warning := pipeline.router.name_warning(self._request)) is not None:
            decision = dataclasses.replace(decision, warning=warning)
        if self._is_demanding:
            pipeline.primary_facts.want()
        plan = pipeline.plan(decision, self._request, demanding=self._is_demanding)
        if plan.max_tokens is not None:
            # Not raised for thinking either: it is the most that the answer may have.
            self._request, self._raises_limit = capped(self._request, plan.max_tokens), False
        plan = self._afford(plan, decision)
        record.decided(decision, route=plan.route, model=plan.candidates[0].model, note=plan.note)
        self._keep_or_abort_speculation(plan)
        # A chat UI's own jobs get no date, nor does a model that the client picked by name.
        untouched = decision.route == Route.META or decision.model is not None
        additions = Additions() if untouched else None
        if plan.wants_context:
            record.phase = "searching"
            context = yield from pipeline.search.fetch_context(record, self._scope, self._dispatcher)
            if context is not None:
                additions = Additions(self._request.date_context, web_context(context))
                self._request = citing(self._request, sources_of(record.steps))
        return (yield from self._dispatch(plan, additions))

    def _begin_admitting(self, request: ChatRequest, key: VirtualKey) -> None:
        """Prepare to let a request of a virtual key in; it is let in with the decision."""
        if key.limits.has_budget:
            self._request = with_token_limit(request, DEFAULT_LIMIT)
        tokens, admission = estimated_tokens(request.total_chars), self._pipeline.admission
        self._record.admitting = admission.begin(key, request.session_id, tokens, request.timestamp)
        if self._record.admitting is not None:
            self._record.subscribers.append(admission.closed)

    def _afford(self, plan: Plan, decision: Decision) -> Plan:
        """The part of the plan that the key's budgets can pay for. Reserves its highest cost."""
        admitting = self._record.admitting
        if admitting is None or not admitting.key.limits.has_budget:
            return plan
        searchers = self._pipeline.registry.searchers
        instead = primary_candidate(self._pipeline.registry)
        return affordable(
            plan, decision, self._request, admitting.key, searchers, admitting.reserve, admitting.exhausted, instead
        )

    # Decide, and speculate meanwhile.

    def _decide(self) -> Decision:
        """The decision. The primary is called meanwhile, if the slow models or the classifier are asked and it is
        worth it."""
        pipeline, record = self._pipeline, self._record
        record.speculation = pipeline.speculation_controller.result_without_call
        found = self._admit_and_decide()
        if isinstance(found, Undecided) and found.head_guess is not None:
            if pipeline.speculates_beside_head:
                self._speculate(found)
            found = pipeline.router.decide_with_slow_models(self._request, found)
            self._decided_at = time.monotonic()
        if not isinstance(found, Undecided):
            return found
        if self._speculation is None:
            self._speculate(found)
        started = time.monotonic()
        new_call = partial(self._scope.new_call, Purpose.CLASSIFICATION)
        decision = pipeline.router.determine_route(self._request, found, new_call)
        if pipeline.memory.urls and decision.failure is None:
            pipeline.memory.answered(CLASSIFIER)
        decision = self._heed_first_words(decision, found)
        self._decided_at = time.monotonic()
        log_lines.classified(decision)
        record.classified(decision, started)
        return decision

    def _heed_first_words(self, decision: Decision, undecided: Undecided) -> Decision:
        """The decision, changed by what the primary has said meanwhile. An answer that has broken off is not used."""
        if not self._pipeline.heeds_first_words or (speculation := self._speculation) is None:
            return decision
        try:
            beginning = speculation.beginning(FIRST_CHARS)
        except UpstreamError as problem:
            self.give_up_speculation()
            self._record.failed(problem, speculation.started)
            self._record.speculated(SpeculationResult.CANCELLED, speculation.started, time.monotonic(), "it failed")
            return decision
        told = None if beginning is None else first_words(*beginning)
        return decision if told is None else self._pipeline.router.reconsider(self._request, undecided, decision, told)

    def _admit_and_decide(self) -> Decision | Undecided:
        """Let the request in, and decide it if that needs nobody else. Both with one look at what processes share."""
        admitting = self._record.admitting
        if admitting is None:
            return self._pipeline.router.decide_at_once(self._request)
        found = self._pipeline.router.decide_at_once(self._request, admitting.values)
        admitting.complete()
        return found

    def _speculate(self, undecided: Undecided) -> None:
        """Call the primary, if what the head guesses and the primary's load make that worth it."""
        pipeline = self._pipeline
        primary = primary_candidate(pipeline.registry)
        if self._is_demanding and misfit(primary, self._request) is not None:
            return
        permit = pipeline.speculation_controller.permit_for(undecided.guess, pipeline.memory.in_memory(primary))
        if permit is None:
            return
        forward = partial(pipeline.forwarder.forward_request, self._request, primary, self._date_for(primary))
        call = self._scope.new_call(Purpose.SPECULATION)
        self._speculation = SpeculativeCall(pipeline.speculations, forward, call, permit)

    def _keep_or_abort_speculation(self, plan: Plan) -> None:
        """Keep the speculative call if it is the very call that the plan begins with; else abort it at once."""
        begins = plan.candidates[0] == primary_candidate(self._pipeline.registry)
        keeps = begins and plan.max_tokens is None and not plan.wants_context
        if (speculation := self._speculation) is None or keeps:
            return
        self.give_up_speculation()
        why = "the web is searched first" if plan.wants_context else "decided otherwise"
        self._record.speculated(SpeculationResult.CANCELLED, speculation.started, self._decided_at, why)
        log_lines.speculation_cancelled(plan.route)

    def give_up_speculation(self) -> None:
        """Abort the speculative call, if there is one that nobody has taken."""
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.abort()
            self._pipeline.speculation_controller.lost(speculation.age_ms())

    # Dispatch.

    def _date_for(self, candidate: Candidate) -> Additions:
        """The date, if the candidate can make something of that."""
        return Additions(self._request.date_context) if candidate.backend.takes_date else Additions()

    def _dispatch(self, plan: Plan, additions: Additions | None) -> Waiting[Answer]:
        """The answer of the first candidate that gives one. Raises the first failure if none does.

        ``additions``: to the messages; None: the date, for each candidate that takes one.
        """
        begun = (self._speculation.started, self._speculation.permit) if self._speculation is not None else None

        def ask(candidate: Candidate, permit: Permit) -> Waiting[Answer]:
            # A generator that waits for nothing: other askers of the dispatcher do wait.
            yield from ()
            if candidate is not plan.candidates[0]:
                self._reserve_for(candidate, plan, permit)
            speculation, self._speculation = self._speculation, None
            self._record.phase = "asking"
            added = self._date_for(candidate) if additions is None else additions
            try:
                answer = self._forward(candidate, permit, added, speculation)
            except RaisedLimitRefused:
                self._raises_limit = False
                raise
            self._record.route = plan.route_for(candidate)
            self._accept(answer, speculative=speculation is not None)
            return answer

        try:
            return (yield from self._dispatcher.first_success(plan.candidates, ask, begun))
        except UpstreamError:
            for candidate, why in plan.left_out:
                self._record.passed_over(candidate.backend.name, why)
            raise

    def _reserve_for(self, candidate: Candidate, plan: Plan, permit: Permit) -> None:
        """Reserve what a further candidate can cost. Raises UpstreamUnavailable if the key's budgets do not suffice."""
        admitting = self._record.admitting
        if admitting is None or not admitting.key.limits.has_budget:
            return
        usd = most_usd(candidate, self._request, plan) or 0.0
        if usd > 0 and admitting.reserve(usd):
            permit.release()
            source = candidate.source
            raise UpstreamUnavailable("not asked, the key's budget does not suffice", source)

    def _forward(
        self, candidate: Candidate, permit: Permit, additions: Additions, speculation: SpeculativeCall | None
    ) -> Answer:
        """One call of the candidate: the speculative one that is under way, or a new one."""
        pipeline = self._pipeline
        if speculation is None:
            call = self._scope.new_call()
            return pipeline.forwarder.forward_request(
                self._request, candidate, additions, call, permit, raises_limit=self._raises_limit
            )
        try:
            answer = speculation.confirm()
        except RouterError:
            self._record.speculated(SpeculationResult.CANCELLED, speculation.started, self._decided_at, "it failed")
            pipeline.speculation_controller.lost(speculation.age_ms())
            raise
        self._record.speculated(SpeculationResult.HIT, speculation.started, self._decided_at, "confirmed")
        pipeline.speculation_controller.won((self._decided_at - speculation.started) * 1000, answer.attempt())
        return answer

    def _accept(self, answer: Answer, *, speculative: bool) -> None:
        """This answer it is: log and record it. A stream's attempt is recorded when it has ended."""
        self._record.phase = "streaming"
        attempt = answer.attempt()
        if self._pipeline.memory.urls:
            self._pipeline.memory.answered(attempt.backend)
        self._record.answered_by(attempt, speculative=speculative, warnings=answer.warnings)
        log_lines.responded(dataclasses.replace(attempt, speculative=True) if speculative else attempt)
