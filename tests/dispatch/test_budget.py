"""The most that an answer can cost, which a key with a budget has reserved before a cloud is asked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.apis import ClientForm
from ai_router.client_apis.messages import API as MESSAGES
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.config_loading import load_settings
from ai_router.dispatch.budget import DEFAULT_LIMIT, most_usd
from ai_router.providers.building import build_registry
from ai_router.providers.pricing import price_of
from ai_router.providers.registry import Candidate
from ai_router.types import Usage
from tests.chat_requests import chat_request

REGISTRY = build_registry(load_settings({"PRIMARY_URL": "http://gpu:8000", "XAI_API_KEY": "k"}, dotenv=None))
XAI = REGISTRY.clouds["xai"]
CLOUD = Candidate(XAI, XAI.model)
PRICE = XAI.facts(XAI.model).price
MOST_OF_A_PICTURE = 14_364
"""One of 12 megapixels at GPT-6 (huggingface.co/datasets/JOHNISKING/image-token-cost)."""


def asks(content: Any, **params: Any) -> float:
    """The most that this message can cost of xAI, in USD."""
    found = most_usd(CLOUD, chat_request(messages=[{"role": "user", "content": content}], params=params))
    assert found is not None
    return found


def input_tokens(content: Any) -> float:
    assert PRICE is not None
    return (asks(content) - asks("")) / PRICE.input * 1_000_000


def costs_of_all_it_can_read() -> float:
    context = XAI.facts(XAI.model).context
    assert PRICE is not None
    assert context is not None
    return price_of(Usage(context, DEFAULT_LIMIT), PRICE)


def picture(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize("text", ["7" * 90_000, "日" * 30_000, "x y\n" * 22_500])
def test_no_text_has_more_tokens_than_are_reserved(text: str) -> None:
    assert input_tokens(text) >= len(text.encode())


def test_a_picture_is_reserved_as_a_picture_wherever_it_is() -> None:
    inline, address = picture("data:image/png;base64," + "A" * 3_000_000), picture("https://example.org/a.png")
    assert MOST_OF_A_PICTURE <= input_tokens(address) < 40_000
    assert input_tokens(inline) == pytest.approx(input_tokens(address), abs=100)
    assert input_tokens([*inline, *inline]) == pytest.approx(2 * input_tokens(inline), rel=0.01)


def test_text_that_looks_like_a_picture_is_text() -> None:
    said = orjson.dumps(picture("data:image/png;base64," + "7" * 50_000)).decode()
    assert input_tokens(said) >= len(said)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    ],
    ids=["by its id", "in the request", "a video"],
)
def test_a_file_may_take_all_that_the_model_can_read(part: dict[str, Any]) -> None:
    assert asks([part]) == costs_of_all_it_can_read()


def test_no_request_has_more_tokens_than_its_model_can_read() -> None:
    assert asks("7" * 5_000_000) == costs_of_all_it_can_read()


TEXT = "7" * 50_000
DOCUMENT = {"type": "document", "title": TEXT, "source": {"type": "content", "content": []}}


@pytest.mark.parametrize(
    ("api", "field", "value", "least"),
    [
        (MESSAGES, "messages", [{"role": "user", "content": [{"type": "search_result", "content": TEXT}]}], 50_000),
        (MESSAGES, "messages", [{"role": "user", "content": [DOCUMENT]}], 50_000),
        (MESSAGES, "messages", [{"role": "user", "content": [{"type": "image", "source": {}, "note": TEXT}]}], 50_000),
        (RESPONSES, "input", [{"type": "compaction", "encrypted_content": TEXT}], 50_000),
        (RESPONSES, "input", [{"type": "message", "content": [{"type": "input_file", "file_url": "u"}]}], 200_000),
    ],
    ids=["search result", "document", "beside a picture", "compaction", "file"],
)
def test_what_is_passed_on_in_another_api_counts_as_it_is_sent(api: Any, field: str, value: Any, least: int) -> None:
    assert PRICE is not None
    form = ClientForm(api, {field: orjson.Fragment(orjson.dumps(value))})
    found = most_usd(CLOUD, chat_request("hello", client_form=form))
    assert found is not None
    assert (found - asks("hello")) / PRICE.input * 1_000_000 >= least - 300


TOOLS = [
    {"name": "look", "input_schema": {"type": "object", "properties": {"type": {"type": ["string", "null"]}}}},
    {"type": "custom", "name": "say", "input_schema": {"type": "object", "properties": {"type": {"type": "file"}}}},
]
CALLED = [
    {"role": "assistant", "content": [{"type": "tool_use", "input": {"type": "file", "path": "a.py"}}]},
    {"role": "user", "content": [{"type": {"odd": 1}, "text": "x"}]},
]


def test_what_looks_like_a_file_in_a_tool_is_text() -> None:
    """A schema has a parameter called type; a call has a file's path."""
    assert PRICE is not None
    form = ClientForm(MESSAGES, {"tools": TOOLS, "messages": CALLED})
    found = most_usd(CLOUD, chat_request("hello", client_form=form))
    assert found is not None
    assert (found - asks("hello")) / PRICE.input * 1_000_000 < 1_000


def test_a_tool_of_the_provider_takes_more_than_its_name() -> None:
    computer = {"type": "computer_20260101", "name": "computer"}
    forms = [ClientForm(MESSAGES, {"messages": [], "tools": tools}) for tools in ([], [computer])]
    without, with_it = (most_usd(CLOUD, chat_request("h" * 500, client_form=form)) for form in forms)
    assert PRICE is not None
    assert without is not None
    assert with_it is not None
    assert (with_it - without) / PRICE.input * 1_000_000 > 500


def test_searches_that_the_catalogue_adds_are_reserved() -> None:
    keys = {"PRIMARY_URL": "http://gpu:8000", "PERPLEXITY_API_KEY": "k"}
    perplexity = build_registry(load_settings(keys, dotenv=None)).clouds["perplexity"]
    assert perplexity.provider is not None
    assert perplexity.provider.search is not None
    found = most_usd(Candidate(perplexity, perplexity.model), chat_request("hello"))
    assert found is not None
    assert found > (perplexity.provider.search.max_usd or 0.0) > 0.0


def test_the_answer_is_reserved_with_its_limit_as_often_as_it_is_wanted() -> None:
    assert PRICE is not None
    one = asks("hello", max_tokens=1_000)
    assert asks("hello", max_tokens=1_000, n=3) - one == pytest.approx(2_000 * PRICE.output / 1_000_000, rel=0.01)
    assert asks("hello") - one == pytest.approx((DEFAULT_LIMIT - 1_000) * PRICE.output / 1_000_000, rel=0.01)


def test_what_is_to_be_kept_in_a_cache_is_reserved_at_the_price_of_an_hour() -> None:
    keys = {"PRIMARY_URL": "http://gpu:8000", "ANTHROPIC_API_KEY": "k"}
    claude = build_registry(load_settings(keys, dotenv=None)).clouds["anthropic"]
    cloud = Candidate(claude, claude.model)

    def most(content: Any) -> float:
        found = most_usd(cloud, chat_request(messages=[{"role": "user", "content": content}]))
        assert found is not None
        return found

    price = claude.facts(claude.model).price
    assert price is not None
    assert price.cache_write_hour == 2 * price.input
    text = {"type": "text", "text": "7" * 100_000}
    kept = most([{**text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    assert kept - most([text]) == pytest.approx(0.1 * price.input, rel=0.02)


def test_what_is_local_costs_nothing_and_what_has_no_price_is_not_known() -> None:
    request = chat_request("hello")
    assert most_usd(Candidate(REGISTRY.primary, "nano"), request) == 0.0
    assert most_usd(Candidate(XAI, "grok-of-tomorrow"), request) is None
