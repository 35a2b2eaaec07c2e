"""RAISE_ON_COMPLAINT: who is not content with the primary's answer has the next turn answered by the cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.conftest import Lab, lab_settings, well_behaved
from tests.fakes.personas import anew
from tests.fakes.router import running_router
from tests.fakes.upstream import fake_upstream

EASY = "what is the capital of France"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = lab_settings(classifier, primary, xai) | {
            "FAST_ROUTING": "on",
            "SHADOW_SHARE": "0",
            "RAISE_ON_COMPLAINT": "on",
        }
        with running_router(tmp_path_factory.mktemp("complaints"), **settings) as router:
            # Until then words alone decide, and what is asked of the classifier depends on the moment.
            router.wait_for_log("Fast path: the sentence vectors are loaded", timeout=30)
            yield Lab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.reset()
    return shared


def talk(lab: Lab, *said: str, **headers: str) -> dict[str, str]:
    """The headers of the last answer of a conversation."""
    messages: list[dict[str, Any]] = []
    answered: dict[str, str] = {}
    for text in said:
        messages.append({"role": "user", "content": text})
        answered = lab.router.chat(messages=messages, headers=headers)[1]
        messages.append({"role": "assistant", "content": "an answer"})
    return {name.lower(): value for name, value in answered.items()}


def test_a_complaint_goes_to_the_cloud_and_says_why(lab: Lab) -> None:
    headers = talk(lab, anew(EASY), "that's wrong")
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("xai", "conversation")
    assert headers["x-router-reason"] == "the user says that it was wrong, after an answer of the primary"


def test_what_goes_on_after_it_stays_there(lab: Lab) -> None:
    assert talk(lab, anew(EASY), "that's wrong", "go on")["x-router-route"] == "xai"


def test_the_same_question_again_is_one_too(lab: Lab) -> None:
    first = anew("How do I configure nginx to proxy websocket connections?")
    assert talk(lab, first, f"{first} Please tell")["x-router-route"] == "xai"


def test_after_an_answer_of_the_cloud_there_is_nothing_to_raise(lab: Lab) -> None:
    hard = "prove that every group of order 15 is cyclic"
    assert "not content" not in talk(lab, anew(hard), "that's wrong")["x-router-reason"]


@pytest.mark.parametrize("headers", [{"x-router-quality": "0"}, {"x-router-policy": "local-only"}])
def test_who_wants_no_cloud_gets_none(lab: Lab, headers: dict[str, str]) -> None:
    assert talk(lab, anew(EASY), "that's wrong", **headers)["x-router-route"] == "primary"
    assert not lab.xai.calls("/v1/chat/completions")


def test_it_is_off_by_default(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> None:
    settings = lab_settings(lab.classifier, lab.primary, lab.xai) | {"FAST_ROUTING": "on", "SHADOW_SHARE": "0"}
    with running_router(tmp_path_factory.mktemp("off"), **settings) as router:
        other = Lab(lab.classifier, lab.primary, lab.xai, router)
        assert "the user says" not in talk(other, anew(EASY), "that's wrong")["x-router-reason"]
