"""What is asked for a comparison, and the most that it can cost. Pure, but for ids and the time of day."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from ai_router.apis import Additions
from ai_router.dispatch.budget import DEFAULT_LIMIT, most_usd
from ai_router.dispatch.token_limits import capped, limit_in
from ai_router.judging.cases import Case
from ai_router.judging.comparing import ANSWER_BYTES, judge_messages
from ai_router.providers.chat_completions import web_context, with_additions
from ai_router.providers.registry import Candidate
from ai_router.types import ChatRequest, Message

_JUDGE_TOKENS = 2_048
"""A judge that thinks needs some; the word is one."""


def cloud_request(case: Case, cloud: Candidate) -> ChatRequest:
    """The client's request for the cloud, with a limit of its tokens."""
    request = _request(case, cloud, case.messages, case.params or {})
    return capped(request, min(limit_in(request) or DEFAULT_LIMIT, DEFAULT_LIMIT))


def judge_request(case: Case, judge: Candidate, first: str, second: str) -> ChatRequest:
    """The question for the judge, with the answers in this order."""
    return capped(_request(case, judge, judge_messages(case.messages, first, second), {}), _JUDGE_TOKENS)


def additions_of(case: Case) -> Additions:
    """What the local model was told beside the conversation."""
    return Additions(case.date_context, "" if case.context is None else web_context(case.context))


def most_of_all(case: Case, cloud: Candidate, judge: Candidate) -> float | None:
    """The most that the three calls of a comparison can cost in USD; None: there is no price for one of them."""
    cloud_side = cloud_request(case, cloud)
    cloud_side = replace(cloud_side, messages_json=with_additions(cloud_side, additions_of(case)))
    judged = judge_request(case, judge, case.answer, "")
    judged = replace(judged, messages_json=judged.messages_json + b" " * ANSWER_BYTES)
    answer, judgement = (most_usd(*one) for one in ((cloud, cloud_side), (judge, judged)))
    return None if answer is None or judgement is None else answer + 2 * judgement


def _request(case: Case, candidate: Candidate, messages: Sequence[Message], params: Mapping[str, Any]) -> ChatRequest:
    return ChatRequest(
        request_id=f"judge-{secrets.token_hex(8)}",
        session_id=case.session_id,
        timestamp=datetime.now(UTC),
        arrived_at=time.monotonic(),
        model=candidate.full_name,
        stream=False,
        messages=messages,
        messages_json=orjson.dumps(messages),
        params=params,
        date_context=case.date_context,
        total_chars=0,
    )
