"""SPECULATION_SIGNAL: what the primary has said while the classifier was asked may change the decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Lab, lab_settings, well_behaved
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, classifies, completion, event, says
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import Plain, Recorded, Reply, Stream, fake_upstream

NOTHING_NEW = ("I don't", " have access to", " real-time data, ", "so I cannot ", "tell you.")
UNSURE = ("I'm not", " sure", " how to prove this.")
PLAIN = ("Boil ", "them for ", "six minutes.")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = lab_settings(classifier, primary, xai) | {"SPECULATION_SIGNAL": "on"}
        with running_router(tmp_path_factory.mktemp("signal"), **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            yield Lab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.reset()
    return shared


def after(lab: Lab, words: tuple[str, ...], label: str = "MODERATE") -> None:
    """The primary says this, and only then the classifier its word."""

    def decide(request: Recorded) -> Reply:
        lab.primary.wait_for(CHAT).answered.wait(10)
        return classifies(label, delay=0.2)(request)

    lab.primary.on(CHAT, says(*words))
    lab.classifier.on(CHAT, decide)


def asked(lab: Lab, text: str, route: str, **fields: Any) -> tuple[int, dict[str, str], bytes]:
    """The answer by that route. Nobody can see when the router has read what the primary sent: on a busy machine that
    may be later than the classifier's word, and then it is asked again."""
    found: list[tuple[int, dict[str, str], bytes]] = []

    def once() -> bool:
        found.append(lab.router.chat(anew(text), **fields))
        return found[-1][1]["x-router-route"] == route

    assert eventually(once), found[-1]
    return found[-1]


@pytest.mark.parametrize("stream", [True, False])
def test_who_knows_nothing_new_is_given_what_the_web_knows(lab: Lab, *, stream: bool) -> None:
    after(lab, NOTHING_NEW)
    status, headers, _ = asked(lab, "the price of tin", "enrich", stream=stream)
    assert (status, headers["x-router-decided-by"]) == (200, "classifier")
    assert headers["x-router-speculation"] == "cancelled"
    assert headers["x-router-confidence"] == "unknown"
    assert headers["x-router-reason"].endswith("; but the primary's answer says that it knows nothing new")
    assert lab.xai.calls(SEARCH)
    session = lab.router.session(headers["x-session-id"])
    assert (session["decision"]["label"], session["decision"]["judged"]) == ("ENRICH", "MODERATE")


@pytest.mark.parametrize("stream", [True, False])
def test_who_is_not_sure_leaves_it_to_the_cloud(lab: Lab, *, stream: bool) -> None:
    after(lab, UNSURE)
    assert b"not sure" not in asked(lab, "is this so", "xai", stream=stream)[2]


def test_an_answer_like_any_other_arrives_as_it_was_sent(lab: Lab) -> None:
    after(lab, PLAIN)
    direct = says(*PLAIN)(Recorded("POST", CHAT, {}, b'{"stream": true}', 0.0))
    assert isinstance(direct, Stream)
    headers, body = lab.router.chat(anew("eggs"), stream=True)[1:]
    assert (headers["x-router-route"], headers["x-router-speculation"]) == ("primary", "hit")
    assert body == b"".join(direct.portions)


def test_what_is_complex_anyway_goes_to_the_cloud(lab: Lab) -> None:
    after(lab, NOTHING_NEW, "COMPLEX")
    assert lab.router.chat(anew("prove it"))[1]["x-router-route"] == "xai"


def test_who_wants_no_cloud_gets_none(lab: Lab) -> None:
    after(lab, UNSURE)
    headers = lab.router.chat(anew("is this so"), headers={"x-router-quality": "0"})[1]
    assert (headers["x-router-route"], headers["x-router-speculation"]) == ("primary", "hit")


@pytest.mark.parametrize(
    "error", [b"", event({"error": {"message": "CUDA error", "code": 500}})], ids=["reset", "error"]
)
def test_an_answer_that_breaks_off_meanwhile_is_asked_for_anew(lab: Lab, error: bytes) -> None:
    after(lab, PLAIN)
    begun = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Boil "})]
    lab.primary.on(CHAT, Stream([*begun, *([error] if error else [])], ending="reset"), says(*PLAIN))
    status, headers, body = lab.router.chat(anew("eggs"), stream=True)
    assert (status, headers["x-router-route"], b"six minutes" in body) == (200, "primary", True)
    assert len(lab.primary.calls(CHAT)) == 2


def test_an_answer_that_is_complete_is_used_however_its_connection_ends(lab: Lab) -> None:
    after(lab, PLAIN)
    lab.primary.on(CHAT, says("Six minutes.", ending="reset"))
    headers, body = lab.router.chat(anew("eggs"), stream=True)[1:]
    assert (headers["x-router-speculation"], b"Six minutes." in body) == ("hit", True)
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_key_with_a_budget_is_answered_for_nothing_if_that_is_decided(tmp_path: Path, lab: Lab) -> None:
    owner = "an-owners-key-of-the-test"
    settings = lab_settings(lab.classifier, lab.primary, lab.xai) | {
        "SPECULATION_SIGNAL": "on",
        "VIRTUAL_KEYS": "on",
        "AI_ROUTER_API_KEYS": owner,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'router.db'}",
    }
    _, key = new_key(settings["DATABASE_URL"], "--monthly-usd", "0.0001")
    with running_router(tmp_path, **settings) as router:
        router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
        after(lab, UNSURE)
        headers = router.chat(anew("is this so"), headers={"authorization": f"Bearer {key}"})[1]
        assert headers["x-router-route"] == "primary"


def test_improbable_tokens_count_where_the_client_asks_for_them(lab: Lab) -> None:
    after(lab, PLAIN)
    answer = completion("The capital is Ouaga.")
    answer["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": -2.5}] * 30}
    lab.primary.on(CHAT, Plain(answer))
    headers = asked(lab, "which capital", "xai", logprobs=True)[1]
    assert headers["x-router-reason"].endswith("; but the primary's answer hardly knows what it says")


def test_it_is_off_by_default(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = lab_settings(lab.classifier, lab.primary, lab.xai)
    with running_router(tmp_path_factory.mktemp("off"), **settings) as router:
        router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
        after(lab, NOTHING_NEW)
        lab.primary.requests.clear()
        headers = router.chat(anew("the price of tin"))[1]
    assert (headers["x-router-route"], headers["x-router-speculation"]) == ("primary", "hit")
