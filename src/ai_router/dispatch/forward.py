"""One call of one candidate for the answer: build the request, send it, and check that an answer has begun.

A plain answer is read whole. A stream is read up to its first event with data. Until then the client has not got a
byte, so another candidate may be asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ai_router.apis import Additions
from ai_router.config import MaxTokensPolicy
from ai_router.dispatch.answer import Answer, StreamAnswer
from ai_router.dispatch.client_form import SHAPE_ERRORS, AnswerForm, CannotCarry, SpokenApis, ThoughtOrigins
from ai_router.dispatch.other_form import completion_of, events_of, looks_like_events, mended
from ai_router.dispatch.plain_answer import PlainAnswer, ms_since, parsed
from ai_router.dispatch.priorities import Priorities
from ai_router.dispatch.thinking import PrimaryThinking
from ai_router.errors import (
    InvalidRequest,
    RaisedLimitRefused,
    RouterError,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from ai_router.http.calls import UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient, UpstreamResponse
from ai_router.providers.chat_completions import AnswerReader, with_additions
from ai_router.providers.errors import error_from_response, error_in_body
from ai_router.providers.families import FAMILIES, ClientBodyParts, Family, RequestParts, SpokenFamily
from ai_router.providers.fields import TOKEN_LIMITS, SentFields, sent_fields
from ai_router.providers.registry import Backend, Candidate, Registry
from ai_router.resilience.limiter import Permit
from ai_router.resilience.retry import record_result
from ai_router.types import Attempt, ChatRequest

_MAX_ANSWER_BYTES = 64 << 20
_MAX_ERROR_BYTES = 1 << 20
_GOOD_STATUSES = frozenset({200, 201, 202, 203})
_PASS_ON = MaxTokensPolicy("pass")
_CHAT = FAMILIES["chat"]
_OF_LIMITS = re.compile(r"max_tokens|max_completion_tokens|max_output_tokens|context|too long|too large", re.IGNORECASE)
"""In the message of a refusal that may be about a limit. A wrong guess costs one more call."""


class Forwarder:
    """Makes the calls for answers. Safe from any thread."""

    def __init__(
        self,
        client: UpstreamClient,
        registry: Registry,
        *,
        primary_max_tokens: MaxTokensPolicy,
        thinking: PrimaryThinking,
        request_timeout_s: float,
        thoughts: ThoughtOrigins | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._registry = registry
        self._primary_max_tokens = primary_max_tokens
        self._thinking = thinking
        self._request_timeout_s = request_timeout_s
        self._clock = clock
        self._spoken = SpokenApis()
        self._priorities = Priorities()
        self._thoughts = thoughts or ThoughtOrigins()

    def forward_request(
        self,
        request: ChatRequest,
        candidate: Candidate,
        additions: Additions,
        call: UpstreamCall,
        permit: Permit,
        *,
        raises_limit: bool = True,
    ) -> Answer:
        """The answer of ``candidate`` to ``request``, with ``additions``. In the client's own API, if it speaks one
        that the candidate speaks, too.

        ``raises_limit``: whether the policy for max_tokens may raise it. The result of the call is reported to
        ``permit``, which is released when the answer is closed (a plain one is closed already). Raises UpstreamError,
        RaisedLimitRefused and ApiNotSpoken among them, InvalidRequest, or the reason for which ``call`` was aborted.
        """
        started, form = self._clock(), request.client_form
        client_family = None if form is None else self._spoken.family_for(request, candidate.backend)
        if client_family is None and form is not None and (field := form.kept.get("untranslatable")):
            permit.release()
            message = f"'{field}' has no place in the API that it speaks"
            raise CannotCarry(message, candidate.backend.source, param=field)
        fields = self._fields(request, candidate, client_family, raises_limit=raises_limit)
        told = candidate.priority and client_family is None
        fields, has_priority = self._priorities.added(fields, candidate) if told else (fields, False)
        permit.body = request.messages_json
        try:
            answer = self._call_candidate(request, candidate, fields, additions, client_family, call, permit, started)
        except RouterError as problem:
            if not (isinstance(problem, UpstreamTimeout) and self._deadline(request) <= self._clock()):
                # After the request's own deadline a timeout says nothing of the backend.
                record_result(permit, problem)
            permit.release()
            if fields.raised and isinstance(problem, UpstreamRefused) and _OF_LIMITS.search(problem.detail):
                raise RaisedLimitRefused(problem.detail, problem.source, status=problem.status) from problem
            if has_priority and isinstance(problem, UpstreamRefused):
                self._priorities.check(problem, candidate)
            raise
        except BaseException:  # raised again; the permit must not stay taken
            permit.release()
            raise
        if client_family is None and form is not None:
            self._spoken.answered(request, candidate.backend)
        if fields.limit is not None or fields.dropped:
            answer.warnings = fields.warnings(candidate.backend.name)
        if client_family is not None and form is not None and self._thoughts.foreign(form, candidate.backend):
            answer.warnings = [*answer.warnings, f"{candidate.backend.name} is not sent the thoughts of another model"]
        return answer

    def _call_candidate(
        self,
        request: ChatRequest,
        candidate: Candidate,
        fields: SentFields,
        additions: Additions,
        client_family: SpokenFamily | None,
        call: UpstreamCall,
        permit: Permit,
        started: float,
    ) -> Answer:
        upstream_request = self._upstream_request(request, candidate, fields, additions, client_family, call.number)
        response = self._client.open(upstream_request, call)
        form = self._answer_form(request, candidate.backend, client_family)
        try:
            if client_family is not None:
                self._spoken.check(response.status, client_family, candidate.backend, request)
            _raise_for_status(response, upstream_request)
            if request.stream:
                deadline = self._deadline(request)
                return _stream(
                    response,
                    upstream_request,
                    form,
                    permit,
                    started=started,
                    request=request,
                    deadline=deadline,
                    call_number=call.number,
                )
            answer = _plain(response, upstream_request, form, started=started, request=request, call_number=call.number)
        except BaseException:  # raised again; the response must not stay open
            response.close()
            raise
        permit.succeeded()
        permit.release()
        return answer

    def _answer_form(self, request: ChatRequest, backend: Backend, client_family: SpokenFamily | None) -> AnswerForm:
        if client_family is None:
            return AnswerForm(backend.family, request.client_form, passes_on=False)
        note = partial(self._spoken.note_partly_spoken, client_family, backend)
        return AnswerForm(client_family, request.client_form, passes_on=True, on_partly_spoken=note)

    def _fields(
        self, request: ChatRequest, candidate: Candidate, client_family: SpokenFamily | None, *, raises_limit: bool
    ) -> SentFields:
        backend, params = candidate.backend, request.params
        rules, understood = backend.rules(candidate.model), backend.family.fields
        if client_family is not None and request.client_form is not None:
            # The rules are about chat completions.
            params, rules, understood = request.client_form.fields, (), None
        if not rules and understood is None and not any(name in params for name in TOKEN_LIMITS):
            return SentFields(params)
        has_policy = raises_limit and backend is self._registry.primary
        return sent_fields(
            params,
            rules,
            self._primary_max_tokens if has_policy else _PASS_ON,
            reasons=self._thinking.reasons,
            understood=understood,
        )

    def _upstream_request(
        self,
        request: ChatRequest,
        candidate: Candidate,
        fields: SentFields,
        additions: Additions,
        client_family: SpokenFamily | None,
        call_number: int,
    ) -> UpstreamRequest:
        backend, model = candidate.backend, candidate.model
        left_s = self._deadline(request) - self._clock()
        values = {**backend.defaults, **fields.values} if backend.defaults else fields.values
        send_as, headers = backend.facts(model).send_as, backend.headers
        if client_family is not None and (form := request.client_form) is not None:
            foreign = self._thoughts.foreign(form, backend)
            thinks = "reasoning" in (backend.facts(model).capabilities or ())
            parts = ClientBodyParts(model, send_as, request.stream, values, additions, foreign, thinks)
            body, headers = client_family.body_from_client(parts), {**form.headers, **headers}
        else:
            messages_json = with_additions(request, additions)
            body = _body(backend.family, RequestParts(model, send_as, request.stream, messages_json, values))
        return UpstreamRequest(
            declared_local=candidate.backend.declared_local,
            source=candidate.source,
            method="POST",
            url=backend.url((client_family or backend.family).path),
            timeouts=self._registry.timeouts(backend, stream=request.stream, total_s=max(left_s, 0.001)),
            secret=backend.key,
            headers={**headers, "X-Request-Id": upstream_request_id(request.request_id, call_number)},
            body=body,
        )

    def _deadline(self, request: ChatRequest) -> float:
        return request.arrived_at + self._request_timeout_s


def upstream_request_id(request_id: str, call_number: int) -> str:
    """The X-Request-Id for a backend: the request's id, with the call's number from the second call on. vLLM uses it as
    its own id, so that it must differ from that of a speculative call that has not ended yet."""
    return request_id if call_number == 1 else f"{request_id}-{call_number}"


def _body(family: Family, parts: RequestParts) -> bytes:
    try:
        return family.body(parts)
    except SHAPE_ERRORS as problem:
        # The family translates the messages, which are checked by backends only.
        raise InvalidRequest(
            "this model is spoken with through another API, and 'messages', 'tools' or 'response_format' cannot be "
            "translated for it",
            "messages",
        ) from problem


def _raise_for_status(response: UpstreamResponse, upstream_request: UpstreamRequest) -> None:
    # Some servers answer what they have made with 201.
    if response.status not in _GOOD_STATUSES:
        raise error_from_response(response.status, response.headers, response.read(_MAX_ERROR_BYTES), upstream_request)


def _is_plain_chat(form: AnswerForm) -> bool:
    """Whether backend and client speak chat completions, so that the bytes are relayed."""
    return form.client_form is None and form.family is _CHAT


def _stream(
    response: UpstreamResponse,
    upstream_request: UpstreamRequest,
    form: AnswerForm,
    permit: Permit,
    *,
    started: float,
    request: ChatRequest,
    deadline: float,
    call_number: int,
) -> StreamAnswer:
    first = None
    rewriting = None if _is_plain_chat(form) else form.rewriting()
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        # The label is no reason to throw an answer away: what it is, its first bytes say.
        first = response.read_portion()
        if not looks_like_events(first):
            whole = first + response.read(_MAX_ANSWER_BYTES)
            first = events_of(_completion(whole, form.family, upstream_request))
            rewriting = form.of_chat_completions().rewriting()
    answer = StreamAnswer(
        response,
        upstream_request,
        permit,
        started=started,
        arrived_at=request.arrived_at,
        hide_usage=not request.wants_usage,
        rewriting=rewriting,
        deadline=deadline,
        call_number=call_number,
    )
    answer.prime(first)
    return answer


def _plain(
    response: UpstreamResponse,
    upstream_request: UpstreamRequest,
    form: AnswerForm,
    *,
    started: float,
    request: ChatRequest,
    call_number: int,
) -> PlainAnswer:
    body = response.read(_MAX_ANSWER_BYTES)
    response.close()
    is_whole = body[:1] == b"{" or not looks_like_events(body)
    if is_whole:
        payload: Mapping[str, Any] = _completion(body, form.family, upstream_request)
    else:
        payload = completion_of(body, form.family.translation(), upstream_request)
    client_answer = None
    if not (is_whole and _is_plain_chat(form)):
        body, client_answer = form.whole(body, payload, is_whole=is_whole)
    reader = AnswerReader()
    message = reader.whole(payload)
    attempt = Attempt(
        backend=upstream_request.source.backend,
        model=upstream_request.source.model,
        started_ms=(started - request.arrived_at) * 1000,
        duration_ms=ms_since(started),
        stream=False,
        status=response.status,
        connect_ms=response.connect_ms,
        finish_reason=reader.finish_reason,
        call_number=call_number,
    )
    return PlainAnswer(body, message, reader.usage, attempt, client_answer)


def _completion(body: bytes, family: Family, upstream_request: UpstreamRequest) -> Mapping[str, Any]:
    """The ``chat.completion`` in the body of a whole answer. Raises UpstreamError for an error, or an empty one."""
    payload = parsed(body)
    if payload is None:
        payload = mended(body)
    if (not isinstance(payload, dict) or "error" in payload or "choices" not in payload) and (
        failure := error_in_body(payload, upstream_request)
    ):
        raise failure
    translated = _translated(family, payload, upstream_request)
    completion = payload if translated is None else translated
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    if not isinstance(completion, Mapping) or not isinstance(choices, list):
        raise UpstreamFailed("the answer is not a chat completion", upstream_request.source)
    told = [choice for choice in choices if isinstance(choice, Mapping)]
    if any(choice.get("error") for choice in told) and (failure := error_in_body(completion, upstream_request)):
        raise failure
    if not any(choice.get("message") or choice.get("text") for choice in told):
        raise UpstreamFailed("the answer is empty", upstream_request.source)
    return completion


def _translated(family: Family, payload: Any, upstream_request: UpstreamRequest) -> Mapping[str, Any] | None:
    try:
        return family.completion(payload) if isinstance(payload, dict) else None
    except SHAPE_ERRORS as problem:
        raise UpstreamFailed("the answer is of no shape that is known, or failed", upstream_request.source) from problem
