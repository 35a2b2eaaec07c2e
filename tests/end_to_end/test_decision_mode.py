"""CLASSIFIER_MODE=decision: a real server of decision models, and scripted ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import orjson
import pytest

from tests.fakes.decider import running_decider
from tests.fakes.personas import CHAT, anew, says
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Reply, fake_upstream

SYSTEM_ONE = "/v1/systemone"


def decides(**shares: float) -> Plain:
    best = max(shares, key=lambda label: shares[label])
    return Plain({"model": "m", "answers": {"route": {"type": "choice", "choice": best, "probabilities": shares}}})


def settings(classifier: str, primary: FakeUpstream, xai: FakeUpstream, **more: str) -> dict[str, str]:
    primary.on(CHAT, says("from the primary"))
    xai.on(CHAT, says("from xai"))
    return {
        "ROUTER_URL": classifier,
        "CLASSIFIER_MODE": "decision",
        "FAST_ROUTING": "off",
        "PRIMARY_URL": primary.url,
        "XAI_API_URL": xai.url,
        "XAI_API_KEY": "k",
        "BACKOFF_S": "0.02",
        **more,
    }


def test_a_real_decision_model_decides_in_milliseconds_and_says_how_sure_it_is(tmp_path: Path) -> None:
    with (
        running_decider() as url,
        fake_upstream() as primary,
        fake_upstream() as xai,
        running_router(tmp_path, **settings(url, primary, xai)) as router,
    ):
        router.wait_for_log(r"Classifier warmed up: mode=decision in \d+ms")
        for text in ("what is the weather in Rome today?", "hello", "prove that sqrt(2) is irrational"):
            status, headers, _ = router.chat(anew(text))
            assert (status, headers["x-router-decided-by"]) == (200, "classifier")
            assert 1 / 3 < float(headers["x-router-confidence"]) < 1
        router.wait_for_log(r"Classification completed: \w+ -> \w+ in \d+ms \(finish_reason=decision\)")


@pytest.mark.parametrize(
    ("answer", "route", "confidence"),
    [
        (decides(MODERATE=0.1, COMPLEX=0.8, ENRICH=0.1), "xai", "0.800"),
        (decides(MODERATE=0.7, COMPLEX=0.2, ENRICH=0.1), "primary", "0.700"),
        (Plain({"answers": {"route": {"choice": "COMPLEX"}}}), "xai", "unknown"),
    ],
)
def test_its_probabilities_decide(tmp_path: Path, answer: Plain, route: str, confidence: str) -> None:
    with fake_upstream() as decider, fake_upstream() as primary, fake_upstream() as xai:
        decider.on(SYSTEM_ONE, answer)
        with running_router(tmp_path, **settings(decider.url, primary, xai)) as router:
            headers = router.chat(anew())[1]
            assert (headers["x-router-route"], headers["x-router-confidence"]) == (route, confidence)
            asked = decider.calls(SYSTEM_ONE)[-1].body
            assert "user: (" in asked["state"]
            assert asked["state"].startswith("Current date: ")
            assert list(asked["questions"]["route"]["criteria"]) == ["MODERATE", "COMPLEX", "ENRICH"]


def test_the_dial_works_on_them(tmp_path: Path) -> None:
    with fake_upstream() as decider, fake_upstream() as primary, fake_upstream() as xai:
        decider.on(SYSTEM_ONE, decides(MODERATE=0.6, COMPLEX=0.3, ENRICH=0.1))
        unclear = "flurb gnozzle wex qanto brindlemop trask velluni"
        more = {"FAST_ROUTING": "on", "SHADOW_SHARE": "0"}
        with running_router(tmp_path, **settings(decider.url, primary, xai, **more)) as router:
            text = anew(unclear)
            assert router.chat(text)[1]["x-router-route"] == "primary"
            assert router.chat(text, headers={"x-router-quality": "8"})[1]["x-router-route"] == "xai"


@pytest.mark.parametrize(
    "broken",
    [Plain({"error": "'questions'"}, status=422), Plain({"answers": {}}), Plain({}, status=500), Hang()],
    ids=["422", "no answer", "500", "hangs"],
)
def test_one_that_gives_no_decision_leaves_the_default_route(tmp_path: Path, broken: Reply) -> None:
    with fake_upstream() as decider, fake_upstream() as primary, fake_upstream() as xai:
        decider.on(SYSTEM_ONE, broken)
        more = {"CLASSIFIER_TIMEOUT_S": "0.5"}
        with running_router(tmp_path, **settings(decider.url, primary, xai, **more)) as router:
            status, headers, _ = router.chat(anew())
            assert (status, headers["x-router-route"], headers["x-router-decided-by"]) == (200, "primary", "default")
            assert "no decision from the classifier" in headers["x-router-reason"]


def test_its_probabilities_are_calibrated_against_what_people_and_the_fast_path_have_said(tmp_path: Path) -> None:
    """It says ENRICH to everything. After 'learn --classifier' that is worth nothing, and a running router knows."""
    with fake_upstream() as decider, fake_upstream() as primary, fake_upstream() as xai:
        decider.on(SYSTEM_ONE, decides(MODERATE=0.2, COMPLEX=0.2, ENRICH=0.6))
        ours = settings(decider.url, primary, xai, FAST_ROUTING="on", SHADOW_SHARE="0")
        with running_router(tmp_path, **ours) as router:
            environment = clean_environment(DATA_DIR=str(router.data), **ours)
            for number in range(20):
                for text in ("thanks, that was kind of you, friend", "prove that every group of order 15 is cyclic,"):
                    assert router.chat(f"{text} {number}")[1]["x-router-decided-by"] == "fast"
            private = router.chat("thanks, my secretive friend", headers={"x-router-policy": "local-only"})[1]
            assert feedback(router, private["x-request-id"], "COMPLEX") == 201
            assert eventually(lambda: len(list((router.data / "sessions").glob("*.json"))) == 41)
            told = learn(environment, tmp_path)
            assert told.returncode == 0, told.stdout + told.stderr
            assert told.stdout.startswith("40 decisions of which the label is known")
            assert "right: 0.0% as they are, 50.0% calibrated on others" in told.stdout
            router.wait_for_log(r"Classifier: its probabilities are calibrated \(temperature [\d.]+\)")
            headers = router.chat(anew("flurb gnozzle wex qanto brindlemop trask velluni"))[1]
            assert headers["x-router-decided-by"] == "classifier"
            assert headers["x-router-route"] != "enrich"
            assert not [call for call in decider.calls(SYSTEM_ONE) if "secretive" in call.body["state"]]


def feedback(router: RunningRouter, request_id: str, label: str) -> int:
    connection = router.connection()
    try:
        connection.request("POST", "/v1/feedback", orjson.dumps({"request_id": request_id, "should_be": label}))
        return connection.getresponse().status
    finally:
        connection.close()


def learn(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "learn", "--classifier"], check=False, env=environment, cwd=folder, capture_output=True, text=True
    )


def test_too_few_sessions_and_another_mode_are_said_in_a_line(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(SYSTEM_ONE, decides(MODERATE=0.6, COMPLEX=0.3, ENRICH=0.1))
    environment = clean_environment(ROUTER_URL=upstream.url, CLASSIFIER_MODE="decision", DATA_DIR=str(tmp_path))
    told = learn(environment, tmp_path)
    assert told.returncode == 2
    assert "0 decisions of which the label is known; 30 are needed" in told.stderr
    told = learn({**environment, "CLASSIFIER_MODE": "constrained"}, tmp_path)
    assert "--classifier is for CLASSIFIER_MODE=decision" in told.stderr


def test_eval_has_all_of_its_probabilities(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(SYSTEM_ONE, decides(MODERATE=0.6, COMPLEX=0.3, ENRICH=0.1))
    (tmp_path / "mine.jsonl").write_bytes(
        b'{"text": "hello", "label": "MODERATE"}\n{"text": "prove it", "label": "COMPLEX"}\n'
    )
    environment = clean_environment(ROUTER_URL=upstream.url, CLASSIFIER_MODE="decision", DATA_DIR=str(tmp_path))
    command = [COMMAND, "eval", str(tmp_path / "mine.jsonl"), "--json"]
    told = subprocess.run(command, check=True, env=environment, capture_output=True)
    found = orjson.loads(told.stdout)["deciders"]["classifier"]
    assert (found["accuracy"], found["classes"]["COMPLEX"]["auroc"]) == (0.5, 0.5)
