"""Which answers can be compared: those of local models, to requests that the router decided and that are not private.

Pure. A case comes from a request that has just ended, or from a session file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ai_router.config import SessionBodies
from ai_router.routing.dial import LOWEST
from ai_router.types import DecidedBy, Message, Outcome, Route, Status
from ai_router.virtual_key import VirtualKey

_NOT_DECIDED = (None, DecidedBy.EXPLICIT, DecidedBy.META, DecidedBy.POLICY)
"""Who named a model gets that one, and a chat UI's own jobs are too small to be compared."""
_KEPT_FIELDS = frozenset(
    ("max_completion_tokens", "max_tokens", "response_format", "stop", "temperature", "tool_choice", "tools", "top_p")
)
"""The client's fields that the cloud is asked with, too."""
_COMPLETIONS = "completions"
"""The API without a conversation: what it sends is one text, or several, or numbers."""
_TEXT_ONLY = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Case:
    """A local answer to be compared. ``context``: what a web search found for it; None: nothing was searched.

    ``answered_by``: ``backend/model``. ``client`` and ``organization``: whose request it was. ``params``: as of
    ChatRequest.
    """

    session_id: str
    timestamp: datetime
    client: str
    organization: str
    route: str
    answered_by: str
    messages: Sequence[Message]
    answer: str
    context: str | None = None
    date_context: str = ""
    params: Mapping[str, Any] | None = None


def case_of(outcome: Outcome, is_local: Callable[[str], bool]) -> Case | None:
    """The case of a request that has ended; None if its answer is not to be compared. One that asks for no cloud
    (quality 0), or that no other API can carry, is none.

    ``is_local``: whether a backend, by its name, is local. A key that may not use the cloud is no key whose words may
    go there afterwards.
    """
    request, decided = outcome.request, None if outcome.decision is None else outcome.decision.decided_by
    last = outcome.attempts[-1] if outcome.attempts else None
    if last is None or outcome.status is not Status.OK or decided in _NOT_DECIDED or request.local_only:
        return None
    if LOWEST in (request.quality, None if outcome.decision is None else outcome.decision.quality):
        return None
    if request.client_form is not None and request.client_form.kept.get("untranslatable"):
        return None
    answer = _text_of(outcome.response)
    if not is_local(last.backend) or answer is None or not cloud_allowed(request.key) or _has_more(request.messages):
        return None
    contexts = [step.detail.get("context") for step in outcome.steps if step.kind == "enrichment"]
    return Case(
        session_id=request.session_id,
        timestamp=request.timestamp,
        client=request.client,
        organization=request.organization,
        route=outcome.route,
        answered_by=f"{last.backend}/{last.model}",
        messages=request.messages,
        answer=answer,
        context=contexts[-1] if contexts else None,
        date_context=request.date_context,
        params={name: value for name, value in request.params.items() if name in _KEPT_FIELDS},
    )


def stored_case(document: Mapping[str, Any], is_local: Callable[[str], bool]) -> Case | None:
    """The case in a session file; None if its answer is not to be compared, or its words were not kept. The client's
    fields are not in such a file: the cloud is asked without them.

    Raises KeyError, TypeError or ValueError for what is no session.
    """
    decision = document["decision"]
    decided = None if decision is None else DecidedBy(decision["decided_by"])
    calls = [step for step in document["steps"] if step["kind"] == "provider_call" and step["error"] is None]
    if document["bodies"] != SessionBodies.FULL or document["status"] != Status.OK or not calls:
        return None
    if decided in _NOT_DECIDED or document["private"] or document["api"] == _COMPLETIONS:
        return None
    # An earlier version did not keep it, so that nobody knows.
    if decision.get("quality", LOWEST) == LOWEST:
        return None
    answer, messages = _text_of(document["response"]), document["client_messages"]
    if not is_local(calls[-1]["backend"]) or answer is None or _has_more(messages) or _has_tools(messages):
        return None
    contexts = [step["context"] for step in document["steps"] if step["kind"] == "enrichment"]
    return Case(
        session_id=document["session_id"],
        timestamp=datetime.fromisoformat(document["timestamp"]),
        client=document["client"],
        organization=document["organization"],
        route=document["route"],
        answered_by=f"{calls[-1]['backend']}/{calls[-1]['model']}",
        messages=messages,
        answer=answer,
        context=contexts[-1] if contexts else None,
    )


def cloud_allowed(key: VirtualKey | None) -> bool:
    """Whether the words of a key's requests may go to a cloud. ``key`` None: nobody has forbidden it."""
    return key is None or (Route.XAI in key.routes and not key.local_only)


def _text_of(response: Mapping[str, Any] | None) -> str | None:
    """The text of an answer; None for one without, or with calls of tools, which nobody can compare by reading."""
    content = None if response is None or response.get("tool_calls") else response.get("content")
    return content if isinstance(content, str) and content.strip() else None


def _has_tools(messages: Sequence[Message]) -> bool:
    """Whether tools were used in the conversation, without whose descriptions some providers refuse it."""
    return any(message.get("role") == "tool" or message.get("tool_calls") for message in messages)


def _has_more(messages: Sequence[Message]) -> bool:
    """Whether there is anything but text in the conversation: a judge is shown text only."""
    parts = [part for message in messages for part in _parts(message.get("content"))]
    return any(not isinstance(part, Mapping) or part.get("type") not in _TEXT_ONLY for part in parts)


def _parts(content: Any) -> Sequence[Any]:
    return content if isinstance(content, list) else ()
