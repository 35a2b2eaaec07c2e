"""Which answers may be compared, and which never are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from ai_router.apis import ClientForm
from ai_router.client_apis.responses import API
from ai_router.config import SessionBodies
from ai_router.judging.cases import Case, case_of, stored_case
from ai_router.storage.session_logger import session_document
from ai_router.types import DecidedBy, Decision, Label, Outcome, Status, Step
from ai_router.virtual_key import VirtualKey
from tests.chat_requests import chat_request
from tests.outcomes import attempt, outcome


def is_local(backend: str) -> bool:
    return backend == "primary"


def finished(**changes: Any) -> Outcome:
    """A request that the primary has answered, with the step that its session file has of that."""
    call = {"backend": "primary", "model": "m", "error": None}
    return outcome(**{"steps": (Step("provider_call", 2.0, 90.0, call),), **changes})


def decided(by: DecidedBy) -> Decision:
    return Decision(Label.MODERATE, "primary", by, "so it is")


def both(found: Outcome, bodies: SessionBodies = SessionBodies.FULL) -> tuple[Case | None, Case | None]:
    """The case of a request that has ended, and that of its session file."""
    document = orjson.loads(orjson.dumps(session_document(found, None, bodies), default=str))
    return case_of(found, is_local), stored_case(document, is_local)


def test_a_local_answer_is_one_while_it_is_fresh_and_when_it_is_stored() -> None:
    for case in both(finished(route="code")):
        assert case is not None
        assert (case.route, case.answered_by, case.answer) == ("code", "primary/m", "hi")
        assert list(case.messages) == [{"role": "user", "content": "hello"}]


def test_the_web_context_goes_along_since_the_local_model_had_it() -> None:
    steps = (*finished().steps, Step("enrichment", 0.0, 1.0, {"chars": 4, "context": "rain", "error": None}))
    for case in both(finished(steps=steps, route="enrich")):
        assert case is not None
        assert case.context == "rain"


@pytest.mark.parametrize(
    "changes",
    [
        {"request": chat_request("hello", local_only="x-router-policy asks for it")},
        {"status": Status.ERROR},
        {"status": Status.CANCELLED},
        {"decision": decided(DecidedBy.EXPLICIT)},
        {"decision": decided(DecidedBy.META)},
        {"decision": decided(DecidedBy.POLICY)},
        {"decision": None},
        {"response": None},
        {"response": {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}},
        {"response": {"role": "assistant", "content": "  "}},
        {"request": chat_request(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])},
    ],
    ids=["private", "failed", "cancelled", "named", "meta", "policy", "none", "empty", "tool call", "blank", "picture"],
)
def test_it_is_not_compared(changes: dict[str, Any]) -> None:
    assert both(finished(**changes)) == (None, None)


@pytest.mark.parametrize(("quality", "compared"), [(0, False), (1, True), (None, True)])
def test_who_wants_no_cloud_is_not_compared(quality: int | None, compared: bool) -> None:
    """By the request, or by the router's own QUALITY."""
    decision = replace(decided(DecidedBy.FAST), quality=quality)
    assert [case is not None for case in both(finished(decision=decision))] == [compared, compared]
    asked = finished(request=chat_request("hello", quality=quality))
    assert (case_of(asked, is_local) is not None) is compared


def test_a_session_that_does_not_say_which_quality_was_wanted_is_not_compared() -> None:
    document = orjson.loads(orjson.dumps(session_document(finished()), default=str))
    assert stored_case(document, is_local) is not None
    del document["decision"]["quality"]
    assert stored_case(document, is_local) is None


def test_what_no_other_api_can_carry_is_not_compared() -> None:
    form = ClientForm(API, {}, kept={"untranslatable": "input"})
    assert case_of(finished(request=chat_request("hello", client_form=form)), is_local) is None


def test_a_stored_conversation_with_tools_is_not_compared() -> None:
    messages = [{"role": "user", "content": "weather?"}, {"role": "tool", "tool_call_id": "1", "content": "rain"}]
    fresh, stored = both(finished(request=chat_request(messages=messages)))
    assert fresh is not None
    assert stored is None


def test_an_answer_of_the_cloud_is_none() -> None:
    call = {"backend": "xai", "model": "m", "error": None}
    steps = (Step("provider_call", 2.0, 90.0, call),)
    assert both(finished(attempts=(attempt("xai"),), steps=steps)) == (None, None)


def test_a_key_that_may_not_use_the_cloud_is_not_sent_there_afterwards() -> None:
    for key in (VirtualKey("vk-1", "n", routes=frozenset({"primary"})), VirtualKey("vk-2", "n", local_only=True)):
        assert case_of(finished(request=chat_request("hello", key=key)), is_local) is None
    allowed = VirtualKey("vk-3", "n", routes=frozenset({"primary", "xai"}))
    assert case_of(finished(request=chat_request("hello", key=allowed)), is_local) is not None


@pytest.mark.parametrize("bodies", [SessionBodies.OFF, SessionBodies.REDACTED])
def test_a_session_without_its_words_is_none(bodies: SessionBodies) -> None:
    assert both(finished(), bodies)[1] is None
