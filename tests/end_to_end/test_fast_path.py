"""The cascade before the classifier, in a real router as it comes: cache, head, stickiness, speculation, shadow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, Lab, well_behaved
from tests.fakes.personas import CHAT, SEARCH, classifies, says
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import Hang, Plain, fake_upstream
from tests.routing.head.test_store import made

PLAIN = "write a birthday poem for my grandmother"
LIVE = "weather in Oslo tomorrow"
HARD = "prove that every group of order 15 is cyclic"
UNCLEAR = "flurb gnozzle wex qanto brindlemop trask velluni"


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "SHADOW_SHARE": "0",
        }
        with running_router(tmp_path_factory.mktemp("fast"), **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            router.wait_for_log("Fast path: the sentence vectors are loaded", timeout=30)
            yield Lab(classifier, primary, xai, router)


def metric(lab: Lab, name: str) -> float:
    """The value of a metric, labels and all; 0 if it has not been counted yet."""
    lines = lab.router.get("/metrics")[2].decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


def talk(lab: Lab, *turns: str, **fields: Any) -> dict[str, str]:
    """A conversation, user and assistant in turn; the headers of its answer."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": turn} for index, turn in enumerate(turns)]
    status, headers, _ = lab.router.post(orjson.dumps({"messages": messages, **fields}))
    assert status == 200
    return headers


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("text", "route"), [(PLAIN, "primary"), (LIVE, "enrich"), (HARD, "xai")])
def test_what_is_plain_is_decided_without_the_classifier(lab: Lab, text: str, route: str, stream: bool) -> None:
    headers = talk(lab, text, stream=stream)
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == (route, "fast")
    assert headers["x-router-speculation"] == "skipped"
    assert 0.8 < float(headers["x-router-confidence"]) <= 1
    assert headers["x-router-reason"].startswith("fast path: reads like ")
    assert not lab.classifier.calls(CHAT)


def test_the_client_is_told_which_ask_was_judged_and_nobody_else(lab: Lab) -> None:
    headers = talk(lab, "Please: weather in Tromsø tomorrow")
    assert headers["x-router-route"] == "enrich"
    assert "; asked 'weather in Troms%C3%B8 tomorrow', for it: " in headers["x-router-reason"]
    session = lab.router.session(headers["x-session-id"])
    assert session["reason"].startswith("fast path: reads like ENRICH (")
    told = [name for name, value in session.items() if "Troms" in str(value)]
    assert told == ["client_messages"]
    assert not [line for line in lab.router.log() if "Troms" in line]


@pytest.mark.parametrize(
    "text",
    ['"weather in Oslo tomorrow"', "<task>weather in Oslo tomorrow</task>", "Hi! weather in Oslo tomorrow. Thanks!"],
)
def test_a_dressed_prompt_goes_where_the_plain_one_goes(lab: Lab, text: str) -> None:
    assert talk(lab, text)["x-router-route"] == "enrich"


def test_the_primary_is_asked_once_and_at_once(lab: Lab) -> None:
    talk(lab, PLAIN)
    assert len(lab.primary.calls(CHAT)) == 1


def test_what_is_unclear_goes_to_the_classifier_with_a_speculation(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("MODERATE", delay=0.2))
    headers = talk(lab, UNCLEAR)
    assert (headers["x-router-decided-by"], headers["x-router-speculation"]) == ("classifier", "hit")
    assert len(lab.classifier.calls(CHAT)) == 1


def test_what_the_classifier_has_decided_is_not_asked_again(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    first = talk(lab, f"{UNCLEAR} one")
    again = talk(lab, f"  {UNCLEAR}   ONE ")
    assert (first["x-router-decided-by"], again["x-router-decided-by"]) == ("classifier", "cache")
    assert again["x-router-route"] == "xai"
    assert again["x-router-reason"] == "decided before (classifier: COMPLEX)"
    assert len(lab.classifier.calls(CHAT)) == 1


def test_the_same_words_in_another_conversation_are_another_question(lab: Lab) -> None:
    talk(lab, f"{UNCLEAR} two")
    talk(lab, f"{UNCLEAR} zero", "I see.", f"{UNCLEAR} two")
    assert len(lab.classifier.calls(CHAT)) == 2


def test_a_failed_classification_is_not_remembered(lab: Lab) -> None:
    lab.classifier.on(CHAT, Plain({"error": {"message": "busy"}}, status=500), classifies("COMPLEX"))
    first, second = talk(lab, f"{UNCLEAR} three"), talk(lab, f"{UNCLEAR} three")
    assert first["x-router-decided-by"] in ("default", "fast")
    assert "no decision from the classifier" in first["x-router-reason"]
    assert second["x-router-decided-by"] == "classifier"


def loop(lab: Lab, text: str, rounds: int, **fields: Any) -> dict[str, str]:
    """A turn, and ``rounds`` results of tools behind it; the headers of its answer."""
    called = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    behind = [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "prove that P is not NP, by tomorrow's weather"},
    ]
    body = {"messages": [{"role": "user", "content": text}, *behind * rounds], **fields}
    status, headers, _ = lab.router.post(orjson.dumps(body))
    assert status == 200
    return headers


@pytest.mark.parametrize(("text", "route"), [(PLAIN, "primary"), (HARD, "xai")])
def test_a_tool_loop_stays_where_its_turn_went(lab: Lab, text: str, route: str) -> None:
    assert loop(lab, text, 0)["x-router-route"] == route
    for rounds in (1, 2):
        headers = loop(lab, text, rounds)
        assert (headers["x-router-route"], headers["x-router-decided-by"]) == (route, "conversation")
        assert headers["x-router-confidence"] == "unknown"
    assert not lab.classifier.calls(CHAT)


def test_a_tool_loop_searches_once_and_keeps_what_was_found_in_its_place(lab: Lab) -> None:
    question = "weather in Turku tomorrow"
    decided = [loop(lab, question, rounds) for rounds in (0, 1, 2)]
    assert [headers["x-router-route"] for headers in decided] == ["enrich"] * 3
    assert [headers["x-router-decided-by"] for headers in decided] == ["fast", "conversation", "conversation"]
    assert len(lab.xai.calls(SEARCH)) == 1
    asked = [call.body["messages"][0] for call in lab.primary.calls(CHAT)]
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    session = lab.router.session(decided[2]["x-session-id"])
    assert next(step for step in session["steps"] if step["kind"] == "enrichment")["duration_ms"] < 1_000


def test_a_loop_that_goes_in_circles_is_escalated_once_and_stays_in_the_cloud(lab: Lab) -> None:
    question = f"{PLAIN} (in circles)"
    went = [loop(lab, question, rounds) for rounds in range(5)]
    assert [headers["x-router-route"] for headers in went] == ["primary", "primary", "primary", "xai", "xai"]
    assert went[3]["x-router-reason"] == "3 equal tool calls in a row led nowhere"
    assert went[4]["x-router-reason"] == "goes on with a turn that was decided as COMPLEX"
    assert {headers["x-router-decided-by"] for headers in went[1:]} == {"conversation"}


def test_a_loop_of_a_client_that_named_the_primary_stays_there(lab: Lab) -> None:
    for rounds in (0, 3):
        assert loop(lab, f"{PLAIN} (by name)", rounds, model="primary")["x-router-route"] == "primary"


@pytest.mark.parametrize(("text", "route"), [(PLAIN, "primary"), (HARD, "xai")])
def test_go_on_stays_where_the_conversation_is(lab: Lab, text: str, route: str) -> None:
    assert talk(lab, text)["x-router-route"] == route
    headers = talk(lab, text, "Here is the first part. Shall I go on?", "Yes, do it!")
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == (route, "conversation")
    again = talk(lab, text, "Here is the first part. Shall I go on?", "Yes, do it!", "The second part.", "weiter")
    assert (again["x-router-route"], again["x-router-decided-by"]) == (route, "conversation")
    assert not lab.classifier.calls(CHAT)


def test_a_classified_turn_s_loop_asks_nobody_again_also_after_a_failure(lab: Lab) -> None:
    lab.classifier.on(CHAT, Plain({"error": {"message": "busy"}}, status=500), classifies("COMPLEX"))
    first, second = loop(lab, f"{UNCLEAR} nine", 0), loop(lab, f"{UNCLEAR} nine", 1)
    assert first["x-router-route"] == second["x-router-route"]
    assert second["x-router-decided-by"] == "conversation"


def test_an_unsure_classifier_does_not_move_a_conversation(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"), classifies("MODERATE", probability=0.6))
    first = talk(lab, f"{UNCLEAR} four")
    second = talk(lab, f"{UNCLEAR} four", "Hm.", f"{UNCLEAR} five")
    assert first["x-router-route"] == second["x-router-route"] == "xai"
    assert "stays COMPLEX like the turn before" in second["x-router-reason"]


def test_a_sure_classifier_does(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"), classifies("MODERATE", probability=0.95))
    talk(lab, f"{UNCLEAR} six")
    assert talk(lab, f"{UNCLEAR} six", "Hm.", f"{UNCLEAR} seven")["x-router-route"] == "primary"


def test_a_hung_classification_is_asked_again_and_the_hung_one_is_given_up(lab: Lab) -> None:
    lab.classifier.on(CHAT, Hang(), classifies("COMPLEX"))
    headers = talk(lab, f"{UNCLEAR} eight")
    assert (headers["x-router-decided-by"], headers["x-router-route"]) == ("classifier", "xai")
    assert lab.classifier.calls(CHAT)[0].gone.wait(5)


NEEDS_THE_ENCODER = "make a motto for our ice cream shop in Kiel"


def test_the_primary_is_called_while_the_encoder_thinks(lab: Lab) -> None:
    hits = metric(lab, 'ai_router_speculations_total{result="hit"}')
    headers = talk(lab, NEEDS_THE_ENCODER, stream=True)
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("primary", "fast")
    assert headers["x-router-speculation"] == "hit"
    assert len(lab.primary.calls(CHAT)) == 1
    assert not lab.classifier.calls(CHAT)
    assert eventually(lambda: metric(lab, 'ai_router_speculations_total{result="hit"}') == hits + 1)


def test_no_speculation_where_the_head_expects_another_route(lab: Lab) -> None:
    """Hardly MODERATE, yet unsure enough to ask: which of these are, is the head's business, but some must be."""
    skipped = 0
    for text in _UNLIKELY_MODERATE:
        lab.reset()
        lab.classifier.on(CHAT, classifies("COMPLEX"))
        headers = talk(lab, text)
        if (headers["x-router-decided-by"], headers["x-router-speculation"]) == ("classifier", "skipped"):
            skipped += 1
            assert not lab.primary.calls(CHAT)
    assert skipped
    assert metric(lab, 'ai_router_speculations_total{result="skipped_unlikely"}') >= skipped


_UNLIKELY_MODERATE = (
    "tip 12% on a 70 dollar dinner, and tell me in pounds since my guest is paying",
    "twelve coins plus one known to be good, one of the twelve is off, heavy or light unknown. Three weighings",
    "little thing: why's the gcd of two fibonacci numbers again one, and for which others",
    "a price list arrives as a stream. At most k round trips, a fee per trade, and an order",
    "git merge but for slides. how would you build that, moves, rewrites and all",
    "house belongs to gran by half and to five heirs by half, usufruct on one flat",
)


def test_no_speculation_while_requests_wait_in_the_primary_s_own_queue(tmp_path: Path) -> None:
    with fake_upstream() as classifier, fake_upstream() as primary:
        primary.on(CHAT, says("x"))
        classifier.on(CHAT, classifies("MODERATE"))
        primary.on("/metrics", Plain(raw=b"vllm:num_requests_waiting 3\n", content_type="text/plain"))
        with running_router(tmp_path, ROUTER_URL=classifier.url, PRIMARY_URL=primary.url) as router:

            def saturated() -> bool:
                router.chat(f"{UNCLEAR} {time.monotonic_ns()}")
                return 'result="skipped_saturated"' in router.get("/metrics")[2].decode()

            assert eventually(saturated, 10)
            assert primary.calls("/metrics")


def test_saved_and_wasted_milliseconds_are_counted(tmp_path: Path) -> None:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        primary.on(CHAT, says("a", "b", ttft=0.05))
        settings = {"ROUTER_URL": classifier.url, "PRIMARY_URL": primary.url, "XAI_API_URL": xai.url}
        settings |= {"XAI_API_KEY": XAI_KEY, "SPECULATION": "always"}
        with running_router(tmp_path, **settings) as router:
            lab = Lab(classifier, primary, xai, router)
            for label, result in (("MODERATE", "hit"), ("COMPLEX", "cancelled")):
                classifier.on(CHAT, classifies(label, delay=0.2))
                assert talk(lab, f"{UNCLEAR} {label}", stream=True)["x-router-speculation"] == result
            saved = metric(lab, "ai_router_speculation_saved_seconds_total")
            wasted = metric(lab, "ai_router_speculation_wasted_seconds_total")
            assert 0.04 < saved < 0.2, "no more than the answer itself took"
            assert wasted > 0.15


def test_the_shadow_asks_behind_the_answer_and_takes_a_bad_head_out_of_service(tmp_path: Path) -> None:
    with fake_upstream() as classifier, fake_upstream() as primary:
        classifier.on(CHAT, classifies("COMPLEX"))
        primary.on(CHAT, says("x"))
        settings = {"ROUTER_URL": classifier.url, "PRIMARY_URL": primary.url, "SHADOW_SHARE": "1"}
        with running_router(tmp_path, **settings) as router:
            router.wait_for_log(r"Classifier probed: .*")
            router.wait_for_log("Fast path: the sentence vectors are loaded", timeout=30)
            for number in range(25):
                router.chat(f"write a birthday poem for my cousin number {number}")
            router.wait_for_log(
                r"Fast path out of service: it disagreed with the classifier in 100.0% of 20 comparisons .*"
            )
            _, headers, _ = router.chat("write a birthday poem for my uncle")
            assert headers["x-router-decided-by"] == "classifier"
            scraped = router.get("/metrics")[2].decode()
            assert "ai_router_head_in_service 0.0" in scraped
            assert 'ai_router_shadow_total{agreed="false",label="MODERATE"}' in scraped


def test_a_learned_head_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    with fake_upstream() as primary:
        primary.on(CHAT, says("x"))
        with running_router(tmp_path, PRIMARY_URL=primary.url) as router:
            assert router.chat(HARD)[1]["x-router-reason"].startswith("fast path: reads like COMPLEX")
            (router.data / ".head").write_bytes(made())
            (router.data / ".head").replace(router.data / "head.npz")
            router.wait_for_log(r"Fast path: took up another head \(.*head.npz\)")
            assert router.chat(HARD)[1]["x-router-reason"].startswith("fast path: reads like MODERATE")
