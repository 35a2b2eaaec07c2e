"""The dial: x-router-quality, metadata.router_quality, keys and QUALITY."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import Lab, lab_settings, well_behaved
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, anew, classifies, ignores_constraints
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import fake_upstream

HARD = "Prove that every group of order 15 is cyclic, and give a rigorous proof of each lemma that you use"
ORDINARY = "Refactor this function so that it is easier to test"
EASY = "thanks, that was kind of you"
UNCLEAR = "flurb gnozzle wex qanto brindlemop trask velluni"
VECTORS = "Fast path: the sentence vectors are loaded"
"""Until then words alone decide, and are less often sure."""
OWNER = "an-owners-key-of-the-test"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("quality")
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = lab_settings(classifier, primary, xai) | {
            "FAST_ROUTING": "on",
            "SHADOW_SHARE": "0",
            "VIRTUAL_KEYS": "on",
            "AI_ROUTER_API_KEYS": OWNER,
            "DATABASE_URL": f"sqlite:///{folder / 'router.db'}",
        }
        with running_router(folder, **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            router.wait_for_log(VECTORS, timeout=30)
            yield Lab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.reset()
    return shared


def chat(
    router: RunningRouter, text: str, quality: object = None, key: str = OWNER, **fields: Any
) -> tuple[int, dict[str, str], Any]:
    wish = {} if quality is None else {"x-router-quality": str(quality)}
    status, headers, body = router.chat(text, headers={"authorization": f"Bearer {key}", **wish}, **fields)
    return status, {name.lower(): value for name, value in headers.items()}, body


def route_of(lab: Lab, text: str, quality: object = None, **fields: Any) -> str:
    return chat(lab.router, text, quality, **fields)[1]["x-router-route"]


def test_one_request_can_ask_for_less_and_another_for_more(lab: Lab) -> None:
    assert (route_of(lab, anew(HARD)), route_of(lab, anew(HARD), 0)) == ("xai", "primary")
    assert (route_of(lab, anew(ORDINARY)), route_of(lab, anew(ORDINARY), 10)) == ("primary", "xai")
    assert route_of(lab, anew(EASY), 10) == "primary", "no cloud would do that better"


def test_the_reason_says_what_the_wish_did_and_the_session_what_was_judged(lab: Lab) -> None:
    _, headers, _ = chat(lab.router, anew(HARD), 0)
    assert "; quality 0: nothing is COMPLEX, and this would be" in headers["x-router-reason"]
    assert (headers["x-router-decided-by"], headers["x-router-confidence"]) == ("fast", "unknown")
    decision = lab.router.session(headers["x-session-id"])["decision"]
    assert (decision["label"], decision["judged"]) == ("MODERATE", "COMPLEX")


def test_a_request_that_asks_for_nothing_reads_nothing_of_it(lab: Lab) -> None:
    assert "quality" not in chat(lab.router, anew(HARD))[1]["x-router-reason"]


def test_the_classifiers_probability_is_measured_by_the_same_threshold(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("MODERATE", probability=0.6))
    _, headers, _ = chat(lab.router, anew(UNCLEAR), 8)
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("xai", "classifier")
    assert "this is 0.25, and would be MODERATE" in headers["x-router-reason"]


def test_a_decision_from_the_cache_is_turned_as_well(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("MODERATE", probability=0.6))
    text = anew(UNCLEAR)
    assert [route_of(lab, text, quality) for quality in (None, 8, 3)] == ["primary", "xai", "primary"]
    assert len(lab.classifier.calls(CHAT)) == 1, "what was kept is the judgement, not what a wish made of it"


def test_metadata_says_it_where_headers_cannot_be_set(lab: Lab) -> None:
    assert route_of(lab, anew(HARD), metadata={"router_quality": "0"}) == "primary"
    assert route_of(lab, anew(HARD), metadata={"router-quality": 0}) == "primary"
    assert route_of(lab, anew(HARD), 5, metadata={"router_quality": "0"}) == "xai", "the header goes first"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/api/chat", "/v1/route"])
def test_each_api_takes_it(lab: Lab, path: str) -> None:
    message = [{"role": "user", "content": anew(HARD)}]
    body = {"model": "auto", "input": message} if "responses" in path else {"model": "auto", "messages": message}
    connection = lab.router.connection()
    try:
        headers = {"authorization": f"Bearer {OWNER}", "x-router-quality": "0", "content-type": "application/json"}
        connection.request("POST", path, orjson.dumps({"max_tokens": 9, "stream": False, **body}), headers)
        response = connection.getresponse()
        answer = orjson.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, answer
    assert (answer["route"] if path == "/v1/route" else response.getheader("x-router-route")) == "primary"


@pytest.mark.parametrize("value", ["11", "-1", "5.5", "high", ""])
def test_what_is_no_number_from_0_to_10_is_refused(lab: Lab, value: str) -> None:
    status, _, body = chat(lab.router, "hello", value)
    error = orjson.loads(body)["error"]
    assert (status, error["param"]) == (400, "x-router-quality")
    assert error["message"] == "'x-router-quality' must be a whole number from 0 to 10"


@pytest.mark.parametrize(("more", "sent"), [({}, None), ({"trace": "t1"}, {"trace": "t1"})], ids=["alone", "beside"])
def test_what_metadata_says_to_the_router_no_backend_is_told(lab: Lab, more: dict[str, str], sent: object) -> None:
    """OpenAI refuses metadata in a request that is not stored."""
    assert route_of(lab, anew(HARD), metadata={"router_quality": "10", **more}) == "xai"
    assert lab.xai.calls(CHAT)[-1].body.get("metadata") == sent


def test_nor_is_it_in_metadata(lab: Lab) -> None:
    status, _, body = chat(lab.router, "hello", metadata={"router_quality": True})
    assert (status, orjson.loads(body)["error"]["param"]) == (400, "metadata.router_quality")


def test_a_key_can_have_its_own_and_a_request_of_it_another(lab: Lab, shared: Lab) -> None:
    database = f"sqlite:///{shared.router.data.parent / 'router.db'}"
    secret = new_key(database, "--quality", "0")[1]
    assert eventually(lambda: chat(lab.router, "hello", key=secret)[0] == 200)
    assert route_of(lab, anew(HARD), key=secret) == "primary"
    assert route_of(lab, anew(HARD), 5, key=secret) == "xai"


def test_a_tool_loop_goes_on_where_it_began_unless_nothing_is_to_go_to_the_cloud(lab: Lab) -> None:
    asked = {"role": "user", "content": anew(HARD)}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    loop = [
        asked,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]
    assert route_of(lab, "", messages=[asked]) == "xai"
    assert route_of(lab, "", 1, messages=loop) == "xai"
    assert route_of(lab, "", 0, messages=loop) == "primary"


def test_at_0_a_conversation_does_not_stay_with_the_cloud(lab: Lab) -> None:
    asked = {"role": "user", "content": anew(HARD)}
    assert route_of(lab, "", messages=[asked]) == "xai"
    answer = {"role": "assistant", "content": "so it is"}
    lab.classifier.on(CHAT, classifies("MODERATE", probability=0.6))
    for more in ("go on", UNCLEAR):
        turns = [asked, answer, {"role": "user", "content": more}]
        assert route_of(lab, "", 0, messages=turns) == "primary"


def test_a_classifier_that_only_reasons_is_helped_by_the_head(tmp_path: Path) -> None:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        classifier.on(CHAT, ignores_constraints("COMPLEX"))
        settings = lab_settings(classifier, primary, xai) | {"FAST_ROUTING": "on", "SHADOW_SHARE": "0"}
        with running_router(tmp_path, **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=reasoning in \d+ms")
            text = anew(UNCLEAR)
            assert router.chat(text)[1]["x-router-route"] == "xai"
            headers = router.chat(text, headers={"x-router-quality": "1"})[1]
            assert headers["x-router-route"] == "primary"
            assert ", and would be COMPLEX" in headers["x-router-reason"]


def test_the_settings_quality_is_the_default_and_a_reload_takes_over_another(tmp_path: Path) -> None:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = lab_settings(classifier, primary, xai) | {"FAST_ROUTING": "on", "SHADOW_SHARE": "0"}
        (tmp_path / ".env").write_text("QUALITY=0\n")
        with running_router(tmp_path, **settings) as router:
            router.wait_for_log(VECTORS, timeout=30)
            assert router.chat(anew(HARD))[1]["x-router-route"] == "primary"
            assert router.chat(anew(HARD), headers={"x-router-quality": "5"})[1]["x-router-route"] == "xai"
            (tmp_path / ".env").write_text("QUALITY=5\n")
            environment = clean_environment(DATA_DIR=str(router.data), **settings)
            subprocess.run([COMMAND, "reload"], check=True, env=environment, cwd=tmp_path, capture_output=True)
            assert eventually(lambda: router.chat(anew(HARD))[1]["x-router-route"] == "xai")
