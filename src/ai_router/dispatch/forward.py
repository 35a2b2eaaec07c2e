"""One call of one candidate for the answer: build the request, send it, and check that an answer has begun.

A plain answer is read whole. A stream is read up to its first event with data. Until then the client has not got a
byte, so another candidate may be asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ai_router.config import MaxTokensPolicy
from ai_router.dispatch.answer import SHAPE_ERRORS, Answer, PlainAnswer, StreamAnswer, ms_since, parsed
from ai_router.dispatch.other_form import completion_of, events_of, looks_like_events, mended
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
from ai_router.providers.chat_completions import AnswerReader
from ai_router.providers.errors import error_from_response, error_in_body
from ai_router.providers.families import Family, RequestParts
from ai_router.providers.fields import SentFields, sent_fields
from ai_router.providers.registry import Candidate, Registry
from ai_router.resilience.limiter import Permit
from ai_router.resilience.retry import record_result
from ai_router.types import Attempt, ChatRequest

_MAX_ANSWER_BYTES = 64 << 20
_MAX_ERROR_BYTES = 1 << 20
_GOOD_STATUSES = frozenset({200, 201, 202, 203})
_PASS_ON = MaxTokensPolicy("pass")
_OF_LIMITS = re.compile(r"max_tokens|max_completion_tokens|context|too long|too large", re.IGNORECASE)
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._registry = registry
        self._primary_max_tokens = primary_max_tokens
        self._thinking = thinking
        self._request_timeout_s = request_timeout_s
        self._clock = clock

    def forward_request(
        self,
        request: ChatRequest,
        candidate: Candidate,
        messages_json: bytes,
        call: UpstreamCall,
        permit: Permit,
        *,
        raises_limit: bool = True,
    ) -> Answer:
        """The answer of ``candidate`` to ``request``, with ``messages_json`` as its messages.

        ``raises_limit``: whether the policy for max_tokens may raise it. The result of the call is reported to
        ``permit``, which is released when the answer is closed (a plain one is closed already). Raises UpstreamError,
        RaisedLimitRefused among them, InvalidRequest, or the reason for which ``call`` was aborted.
        """
        started = self._clock()
        fields = self._fields(request, candidate, raises_limit=raises_limit)
        permit.body = request.messages_json
        try:
            answer = self._call_candidate(request, candidate, fields, messages_json, call, permit, started)
        except RouterError as problem:
            if not (isinstance(problem, UpstreamTimeout) and self._deadline(request) <= self._clock()):
                # After the request's own deadline a timeout says nothing of the backend.
                record_result(permit, problem)
            permit.release()
            if fields.raised and isinstance(problem, UpstreamRefused) and _OF_LIMITS.search(problem.detail):
                raise RaisedLimitRefused(problem.detail, problem.source, status=problem.status) from problem
            raise
        except BaseException:  # raised again; the permit must not stay taken
            permit.release()
            raise
        if fields.limit is not None or fields.dropped:
            answer.warnings = fields.warnings(candidate.backend.name)
        return answer

    def _call_candidate(
        self,
        request: ChatRequest,
        candidate: Candidate,
        fields: SentFields,
        messages_json: bytes,
        call: UpstreamCall,
        permit: Permit,
        started: float,
    ) -> Answer:
        family = candidate.backend.family
        upstream_request = self._upstream_request(request, candidate, fields, messages_json, call.number)
        response = self._client.open(upstream_request, call)
        try:
            _raise_for_status(response, upstream_request)
            if request.stream:
                deadline = self._deadline(request)
                return _stream(
                    response,
                    upstream_request,
                    family,
                    permit,
                    started=started,
                    request=request,
                    deadline=deadline,
                    call_number=call.number,
                )
            answer = _plain(
                response, upstream_request, family, started=started, request=request, call_number=call.number
            )
        except BaseException:  # raised again; the response must not stay open
            response.close()
            raise
        permit.succeeded()
        permit.release()
        return answer

    def _fields(self, request: ChatRequest, candidate: Candidate, *, raises_limit: bool) -> SentFields:
        backend, params = candidate.backend, request.params
        rules, understood = backend.rules(candidate.model), backend.family.fields
        if not rules and understood is None and "max_tokens" not in params and "max_completion_tokens" not in params:
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
        self, request: ChatRequest, candidate: Candidate, fields: SentFields, messages_json: bytes, call_number: int
    ) -> UpstreamRequest:
        backend, model = candidate.backend, candidate.model
        left_s = self._deadline(request) - self._clock()
        params = fields.values
        parts = RequestParts(
            model=model,
            send_as=backend.facts(model).send_as,
            stream=request.stream,
            messages_json=messages_json,
            params={**backend.defaults, **params} if backend.defaults else params,
        )
        return UpstreamRequest(
            source=backend.source._replace(model=model),
            method="POST",
            url=backend.url(backend.family.path),
            timeouts=self._registry.timeouts(backend, stream=request.stream, total_s=max(left_s, 0.001)),
            secret=backend.key,
            headers={**backend.headers, "X-Request-Id": upstream_request_id(request.request_id, call_number)},
            body=_body(backend.family, parts),
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


def _stream(
    response: UpstreamResponse,
    upstream_request: UpstreamRequest,
    family: Family,
    permit: Permit,
    *,
    started: float,
    request: ChatRequest,
    deadline: float,
    call_number: int,
) -> StreamAnswer:
    first = None
    translation = family.translation()
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        # The label is no reason to throw an answer away: what it is, its first bytes say.
        first = response.read_portion()
        if not looks_like_events(first):
            whole = first + response.read(_MAX_ANSWER_BYTES)
            first = events_of(_completion(whole, family, upstream_request))
            translation = None
    answer = StreamAnswer(
        response,
        upstream_request,
        permit,
        started=started,
        arrived_at=request.arrived_at,
        hide_usage=not request.wants_usage,
        translation=translation,
        deadline=deadline,
        call_number=call_number,
    )
    answer.prime(first)
    return answer


def _plain(
    response: UpstreamResponse,
    upstream_request: UpstreamRequest,
    family: Family,
    *,
    started: float,
    request: ChatRequest,
    call_number: int,
) -> PlainAnswer:
    body = response.read(_MAX_ANSWER_BYTES)
    response.close()
    if body[:1] != b"{" and looks_like_events(body):
        payload: Mapping[str, Any] = completion_of(body, family.translation(), upstream_request)
        body = orjson.dumps(payload)
    else:
        payload = _completion(body, family, upstream_request)
        if family.translation() is not None:
            body = orjson.dumps(payload)
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
    return PlainAnswer(body, message, reader.usage, attempt)


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
