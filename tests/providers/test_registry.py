"""What a client may name."""

from __future__ import annotations

import pytest

from ai_router.errors import ModelNotFound
from ai_router.providers.registry import Named, Registry, build_registry
from ai_router.settings import load_settings


def registry(**settings: str) -> Registry:
    return build_registry(load_settings({"PRIMARY_URL": "http://gpu:8000", "PRIMARY_MODEL": "nano", **settings}, None))


WITH_XAI = {"XAI_API_KEY": "k", "XAI_MODEL": "grok-4.7"}


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("auto", None),
        ("primary", Named("primary")),
        ("xai", Named("xai")),
        ("enrich", Named("enrich")),
        ("nano", Named("primary", "nano")),
        ("grok-4.7", Named("xai", "grok-4.7")),
        ("xai/grok-4.3", Named("xai", "grok-4.3")),
        ("primary/org/model", Named("primary", "org/model")),
    ],
)
def test_names(model: str, named: Named | None) -> None:
    assert registry(**WITH_XAI).resolve(model) == named


@pytest.mark.parametrize("model", ["gpt-4", "xai/", "openai/gpt", "Primary", "enrich/x"])
def test_anything_else_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        registry(**WITH_XAI).resolve(model)


def test_a_cloud_model_without_a_key_is_not_found_but_its_route_may_be_named() -> None:
    with pytest.raises(ModelNotFound):
        registry().resolve("xai/grok-4.3")
    assert registry().resolve("xai") == Named("xai")


def test_the_nearest_names_are_offered() -> None:
    with pytest.raises(ModelNotFound, match=r"Did you mean: grok-4\.7"):
        registry(**WITH_XAI).resolve("grok-4.6")


def test_what_cannot_work_is_not_listed() -> None:
    assert [entry.id for entry in registry().listing()] == ["auto", "primary", "primary/nano"]


def test_every_listed_name_resolves() -> None:
    whole = registry(**WITH_XAI)
    for entry in whole.listing():
        whole.resolve(entry.id)


def test_a_key_is_in_the_headers_and_not_in_the_repr() -> None:
    xai = registry(**{**WITH_XAI, "XAI_API_KEY": "s3cret"}).xai
    assert xai is not None
    assert xai.headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(xai)


def test_a_plain_answer_has_no_first_byte_deadline() -> None:
    catalogue = registry()
    assert catalogue.timeouts(catalogue.primary, stream=False, total_s=600).first_byte is None
    assert catalogue.timeouts(catalogue.primary, stream=True, total_s=600).first_byte == 30
