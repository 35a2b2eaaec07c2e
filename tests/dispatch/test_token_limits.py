"""Limits of the tokens of an answer, whatever an API calls them."""

from __future__ import annotations

from typing import Any

import pytest

from ai_router.apis import ClientForm
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.dispatch.token_limits import capped, limit_in, with_token_limit
from tests.chat_requests import chat_request


def limits(**params: Any) -> dict[str, Any]:
    return dict(capped(chat_request(params=params), 400).params)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": 400}),
        ({"max_tokens": 5000}, {"max_tokens": 400}),
        ({"max_tokens": 20}, {"max_tokens": 20}),
        ({"max_completion_tokens": 5000}, {"max_completion_tokens": 400}),
        ({"max_tokens": 5, "max_completion_tokens": 5000}, {"max_tokens": 5, "max_completion_tokens": 400}),
        ({"max_tokens": None}, {"max_tokens": 400}),
        # No field of chat completions: a backend may not read it.
        ({"max_output_tokens": 1}, {"max_output_tokens": 1, "max_tokens": 400}),
        ({"max_output_tokens": -5}, {"max_output_tokens": -5, "max_tokens": 400}),
    ],
)
def test_no_answer_is_longer_than_the_cap(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    assert limits(**asked) == sent


@pytest.mark.parametrize("asked", [{"max_output_tokens": 1}, {"max_output_tokens": 0}, {"max_tokens": 0}, {}])
def test_what_is_no_limit_is_none(asked: dict[str, Any]) -> None:
    request = chat_request(params=asked)
    assert limit_in(request) is None
    assert with_token_limit(request, 4096).params["max_tokens"] == 4096


def test_one_that_has_a_limit_keeps_it() -> None:
    request = chat_request(params={"max_completion_tokens": 7})
    assert with_token_limit(request, 4096) is request
    assert capped(request, 400) is request


@pytest.mark.parametrize(
    ("api", "fields", "sent"),
    [
        (RESPONSES, {"max_output_tokens": 9000}, {"max_output_tokens": 400}),
        (RESPONSES, {}, {"max_output_tokens": 400}),
        (MESSAGES, {"max_tokens": 9000}, {"max_tokens": 400}),
        (MESSAGES, {"max_tokens": 9000, "thinking": {"budget_tokens": 500}}, {"max_tokens": 400}),
        (
            MESSAGES,
            {"max_tokens": 9000, "thinking": {"budget_tokens": 100}},
            {"max_tokens": 400, "thinking": {"budget_tokens": 100}},
        ),
    ],
)
def test_in_the_clients_own_api_too_and_thoughts_fit_in(api: Any, fields: dict[str, Any], sent: dict[str, Any]) -> None:
    request = capped(chat_request(params={"max_tokens": 9000}, client_form=ClientForm(api, fields)), 400)
    assert request.client_form is not None
    assert dict(request.client_form.fields) == sent
