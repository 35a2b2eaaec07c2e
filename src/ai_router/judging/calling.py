"""One answer of one model, for a comparison: never in anybody's way, and with what it cost.

No request waits for these calls, so they wait for none either: a backend that is busy, failing or cooling down is not
asked. Nothing is asked twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ai_router.apis import Additions
from ai_router.dispatch.forward import Forwarder
from ai_router.dispatch.plain_answer import PlainAnswer
from ai_router.errors import RouterError, UpstreamFailed, UpstreamUnavailable
from ai_router.http.calls import CancelScope
from ai_router.providers.pricing import CallUsd, usage_of
from ai_router.providers.registry import Candidate
from ai_router.resilience.limiter import ConcurrencyLimiter
from ai_router.types import ChatRequest, Purpose, Traffic, Usage


@dataclass(frozen=True, slots=True)
class PaidCall:
    """A call that was made. ``usd``: what it cost; None: nobody knows."""

    traffic: Traffic
    usage: Usage | None
    usd: float | None


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of an answer, None if there is none; why not; and the calls that it took, one or none."""

    text: str | None
    problem: RouterError | None
    calls: tuple[PaidCall, ...]


class ModelCaller:
    """Safe from any thread."""

    def __init__(self, forwarder: Forwarder, limiter: ConcurrencyLimiter, call_usd: CallUsd) -> None:
        self._forwarder = forwarder
        self._limiter = limiter
        self._call_usd = call_usd

    def ask(
        self,
        request: ChatRequest,
        candidate: Candidate,
        purpose: Purpose,
        additions: Additions,
        on_scope: Callable[[CancelScope], object] = lambda _: None,
    ) -> Reply:
        """The answer of ``candidate`` to a request that is not streamed. ``on_scope`` gets the scope of the call before
        it is made, so that it can be aborted."""
        permit = self._limiter.acquire([candidate.limiter_key])
        if permit is None:
            source = candidate.source
            return Reply(None, UpstreamUnavailable("not asked, it is busy or cooling down", source), ())
        scope = CancelScope()
        on_scope(scope)
        request = replace(request, arrived_at=time.monotonic())
        try:
            answer = self._forwarder.forward_request(
                request, candidate, additions, scope.new_call(purpose), permit, raises_limit=False
            )
        except RouterError as problem:
            return Reply(None, problem, self._paid(scope, None, request))
        if not isinstance(answer, PlainAnswer):
            raise TypeError("no stream was asked for")
        source = candidate.source
        text, why = _text_in(answer.message)
        failure = None if why is None else UpstreamFailed(why, source)
        return Reply(text, failure, self._paid(scope, _told_usage(answer), request))

    def _paid(self, scope: CancelScope, usage: Usage | None, request: ChatRequest) -> tuple[PaidCall, ...]:
        return tuple(
            PaidCall(traffic, usage, self._call_usd(traffic, usage, request.timestamp)) for traffic in scope.traffic()
        )


def _text_in(message: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The text of a whole answer; or None, and why it cannot be compared."""
    if message.get("tool_calls"):
        return None, "it calls a tool"
    if message.get("finish_reason") == "length":
        return None, "its answer was cut off at its limit"
    content = message.get("content")
    return (content, None) if isinstance(content, str) and content.strip() else (None, "its answer has no text")


def _told_usage(answer: PlainAnswer) -> Usage | None:
    """The usage that the backend has reported; None: none, or zero tokens, which is no count."""
    usage = usage_of(answer.usage)
    return usage if usage is not None and usage.input > 0 and usage.output > 0 else None
