"""What becomes of a client's fields, and what it is told of that."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ai_router.config import MaxTokensPolicy
from ai_router.providers.catalogue import Rules, load_catalogue
from ai_router.providers.families import FAMILIES
from ai_router.providers.fields import SentFields, sent_fields

CATALOGUE = load_catalogue()
AUTO = MaxTokensPolicy("auto", 8192)


def auto(reasons: bool | None, **params: Any) -> SentFields:
    return sent_fields(params, policy=AUTO, reasons=reasons)


@pytest.mark.parametrize(("reasons", "sent"), [(None, 8202), (True, 8202), (False, 10)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_auto_makes_room_for_thinking_unless_the_model_is_known_not_to_think(
    name: str, reasons: bool | None, sent: int
) -> None:
    fields = auto(reasons, **{name: 10, "seed": 1})
    assert fields.values == {name: sent, "seed": 1}
    told = [] if reasons is False else [f"primary: {name} raised by 8192 for thinking"]
    assert (fields.warnings("primary"), fields.raised) == (told, reasons is not False)


@pytest.mark.parametrize(
    "switch",
    [
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": orjson.Fragment(b'{"enable_thinking":false}')},
        {"chat_template_kwargs": orjson.Fragment(b'{"thinking":false}')},
    ],
)
def test_thinking_that_is_switched_off_needs_no_room(switch: dict[str, Any]) -> None:
    assert auto(True, max_tokens=10, **switch).values["max_tokens"] == 10
    assert auto(True, max_tokens=10, chat_template_kwargs=orjson.Fragment(b"{}")).raised


@pytest.mark.parametrize(
    "params",
    [{"max_tokens": 10, "max_completion_tokens": None}, {"max_completion_tokens": None, "max_tokens": 10}],
    ids=["before", "behind"],
)
def test_a_null_takes_no_place_from_a_field_that_is_renamed_to_it(params: dict[str, Any]) -> None:
    renames = Rules(rename={"max_tokens": "max_completion_tokens"})
    assert sent_fields(params, [renames]).values == {"max_completion_tokens": 10}


@pytest.mark.parametrize("policy", [AUTO, MaxTokensPolicy("strip"), MaxTokensPolicy("add", 5)])
@pytest.mark.parametrize("beside", [{"ignore_eos": True}, {"min_tokens": 5}])
def test_a_limit_is_the_only_end_beside_ignore_eos_and_min_tokens(
    policy: MaxTokensPolicy, beside: dict[str, Any]
) -> None:
    params = {"max_tokens": 10, **beside}
    assert sent_fields(params, policy=policy).values is params


@pytest.mark.parametrize("beside", [{"ignore_eos": False}, {"min_tokens": 0}])
def test_switched_off_they_change_nothing(beside: dict[str, Any]) -> None:
    assert auto(None, max_tokens=10, **beside).raised


def test_what_is_stripped_or_raised_is_told() -> None:
    params = {"max_tokens": 10, "max_completion_tokens": 12}
    assert sent_fields(params, policy=MaxTokensPolicy("strip")).warnings("primary") == [
        "primary: max_tokens and max_completion_tokens not sent (PRIMARY_MAX_TOKENS=strip)"
    ]
    assert sent_fields({"max_tokens": 10}, policy=MaxTokensPolicy("add", 5)).warnings("primary") == [
        "primary: max_tokens raised by 5"
    ]


@pytest.mark.parametrize("provider", [name for name, known in CATALOGUE.providers.items() if not known.local])
@pytest.mark.parametrize("server", CATALOGUE.server_fields)
def test_no_cloud_is_sent_what_only_a_server_of_ones_own_has(provider: str, server: str) -> None:
    cloud = CATALOGUE.providers[provider]
    names = CATALOGUE.server_fields[server]
    fields = sent_fields(dict.fromkeys(names, 1), cloud.rules_for("any"))
    assert set(fields.values) & names == cloud.takes & names
    assert set(fields.dropped) == names - cloud.takes


def test_fields_that_are_dropped_are_told_a_few_by_name() -> None:
    grok = CATALOGUE.providers["xai"].rules_for("grok-4.7")
    assert sent_fields({"stop": ["x"], "seed": 1}, grok).warnings("xai") == ["xai is not sent stop"]
    many = {f"a_field_of_the_client_with_a_long_name_{number}": 1 for number in range(200)}
    (told,) = sent_fields(many, [Rules(keep=frozenset())]).warnings("gemini")
    assert told.endswith(" and 190 more")
    assert len(told) < 500


def test_a_field_that_is_renamed_is_not_dropped() -> None:
    o3 = CATALOGUE.providers["openai"].rules_for("o3")
    assert sent_fields({"max_tokens": 5}, o3).dropped == ()


def test_of_another_api_what_has_no_place_there_is_told() -> None:
    params = {"seed": 1, "temperature": 0.5, "tools": [], "stream_options": {}}
    assert sent_fields(params, understood=FAMILIES["agent"].fields).dropped == ("seed",)


def test_a_field_that_nobody_knows_passes() -> None:
    for provider in ("xai", "openai", "openrouter"):
        rules = CATALOGUE.providers[provider].rules_for("any")
        assert sent_fields({"brand_new": 1}, rules).values == {"brand_new": 1}
