"""JUDGE_SHARE and ``ai-router judge``: local answers beside the cloud's, blind, in both orders, within a budget."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.end_to_end.conftest import Lab, lab_settings, well_behaved
from tests.end_to_end.test_local_only import DOORS, ask
from tests.fakes.personas import CHAT, anew, classifies, completion, says
from tests.fakes.router import COMMAND, RunningRouter, clean_environment, eventually, running_router
from tests.fakes.upstream import Plain, Recorded, Reply, fake_upstream

JUDGE = "grok-4.3"
PAGE = Path(__file__).parents[2] / "docs/steering.md"
USD = 0.01
"""What each call of the cloud costs."""


def is_judgement(request: Recorded) -> bool:
    return bool(request.body.get("model") == JUDGE)


def charged(text: str) -> Plain:
    """An answer that says what it cost."""
    answer = completion(text)
    answer["usage"]["cost_in_usd_ticks"] = int(USD * 1e10)
    return Plain(answer)


def judging(prefer: Callable[[str, str], str]) -> Callable[[Recorded], Reply]:
    """A cloud that answers, and a judge that says what ``prefer`` makes of the two answers."""

    def reply(request: Recorded) -> Reply:
        if not is_judgement(request):
            return charged("from xai")
        asked = orjson.loads(request.body["messages"][1]["content"])
        return charged(prefer(asked["answer_a"], asked["answer_b"]))

    return reply


def prefers_local(first: str, _second: str) -> str:
    return "A" if "primary" in first else "B"


def settings_of(lab: Lab, **settings: str) -> dict[str, str]:
    found = lab_settings(lab.classifier, lab.primary, lab.xai)
    return {**found, "JUDGE_MODEL": f"xai/{JUDGE}", "JUDGE_BUDGET_USD": "5", "JUDGE_SHARE": "1", **settings}


@pytest.fixture
def backends() -> Iterator[Lab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        xai.on(CHAT, judging(prefers_local))
        yield Lab(classifier, primary, xai, None)  # type: ignore[arg-type]  # each test starts its own


def judgements(lab: Lab) -> list[Recorded]:
    return [call for call in lab.xai.calls(CHAT) if is_judgement(call)]


def judged(router: RunningRouter) -> dict[str, float]:
    """How many answers were judged, by route and winner, as /metrics says."""
    lines = router.get("/metrics")[2].decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith("ai_router_judged_total{"))
    return {labels.partition("{")[2]: float(value) for labels, value in found}


def report(data: Path, settings: dict[str, str], *options: str) -> tuple[dict[str, Any], str]:
    """The figures of ``ai-router judge``, and what it said on stderr."""
    ran = subprocess.run(
        [COMMAND, "judge", "--json", *options],
        check=True,
        env=clean_environment(**settings, DATA_DIR=str(data)),
        capture_output=True,
        text=True,
    )
    return orjson.loads(ran.stdout), ran.stderr


def shown(data: Path, settings: dict[str, str]) -> str:
    """What ``ai-router judge --report`` prints for people."""
    environment = clean_environment(**settings, DATA_DIR=str(data))
    return subprocess.run(
        [COMMAND, "judge", "--report"], check=True, env=environment, capture_output=True, text=True
    ).stdout


def test_a_local_answer_is_judged_after_the_client_has_it(backends: Lab, tmp_path: Path) -> None:
    settings = settings_of(backends)
    with running_router(tmp_path, **settings) as router:
        headers, body = router.chat(anew("name a river"), temperature=0.3)[1:]
        assert (headers["x-router-route"], b"from the primary" in body) == ("primary", True)
        assert eventually(lambda: judged(router) == {'route="primary",winner="local"}': 1.0})
        egress = eventually(lambda: orjson.loads(router.get("/api/usage")[2])["left_local_network"])
        page = orjson.loads(router.get("/api/egress?limit=1")[2])
        rest = orjson.loads(router.get(f"/api/egress?before={page['next']}")[2])
        assert len(page["data"]) + len(rest["data"]) == 3, "a call that was made afterwards ends a page like any other"
        told = orjson.loads(router.get("/api/judgements")[2])
    shadow = next(call for call in backends.xai.calls(CHAT) if not is_judgement(call))
    assert (shadow.body["temperature"], shadow.body["model"]) == (0.3, "grok-4.7")
    orders = [orjson.loads(call.body["messages"][1]["content"])["answer_a"] for call in judgements(backends)]
    assert orders == ["from the primary", "from xai"]
    assert {(row["purpose"], row["calls"]) for row in egress} == {("shadow", 1), ("judgement", 2)}
    figures, _ = report(router.data, settings, "--report")
    assert told == figures
    assert figures["spent_usd"] == pytest.approx(3 * USD)
    primary = figures["routes"]["primary"]
    assert (primary["compared"], primary["won_by_local"], primary["rate"]) == (1, 1, 1.0)
    assert primary["interval"][0] < 0.5


def test_a_judge_that_likes_what_stands_first_shows_nothing(backends: Lab, tmp_path: Path) -> None:
    backends.xai.on(CHAT, judging(lambda _first, _second: "A"))
    with running_router(tmp_path, **settings_of(backends)) as router:
        router.chat(anew("name a river"))
        assert eventually(lambda: judged(router) == {'route="primary",winner="tie"}': 1.0})


def test_judgements_are_shown_to_whoever_sees_everything(backends: Lab, tmp_path: Path) -> None:
    keys = {"AI_ROUTER_API_KEYS": "a-clients-key-of-the-test", "AI_ROUTER_ADMIN_KEY": "an-admins-key-of-the-test"}
    with running_router(tmp_path, **settings_of(backends, JUDGE_SHARE="0"), **keys) as router:
        seen = {
            name: router.get("/api/judgements", {"authorization": f"Bearer {key}"})[0] for name, key in keys.items()
        }
        assert seen == {"AI_ROUTER_API_KEYS": 403, "AI_ROUTER_ADMIN_KEY": 200}
        assert router.get("/api/judgements")[0] == 401


def test_nothing_private_is_compared(backends: Lab, tmp_path: Path) -> None:
    with running_router(tmp_path, **settings_of(backends, PRIVATE_PATTERNS="email")) as router:
        router.chat(anew("write to jane@example.org"))
        router.chat(anew("hello"), headers={"x-router-policy": "local-only"})
        router.chat(anew("hello"), model="primary")
        for door, body in DOORS.items():
            status, _, answer = ask(router, door, body(anew("hello")))
            assert status == 200, answer
        # One is judged at a time, in their order: with this one all before it have been looked at.
        router.chat(anew("what else?"))
        assert eventually(lambda: judged(router) == {'route="primary",winner="local"}': 1.0})
    assert not [call for call in backends.xai.requests if b"hello" in call.raw_body or b"jane" in call.raw_body]


def test_an_answer_with_something_private_in_it_stays(backends: Lab, tmp_path: Path) -> None:
    backends.primary.on(CHAT, says("Ask jane@example.org"), says("from the primary"))
    with running_router(tmp_path, **settings_of(backends, PRIVATE_PATTERNS="email")) as router:
        router.chat(anew("whom to ask"))
        router.chat(anew("name a river"))
        assert eventually(lambda: judged(router) == {'route="primary",winner="local"}': 1.0})
    assert not [call for call in backends.xai.requests if b"jane" in call.raw_body]


def test_a_route_of_the_owners_without_a_cloud_stays(backends: Lab, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.toml"
    examples = [f"my ticket {word}" for word in ("is late", "is lost", "was sold", "is open", "has moved")]
    catalogue.write_text(f'[routes.tickets]\ndescription = "tickets"\nbackend = "primary"\nexamples = {examples}\n')

    def classify(request: Recorded) -> Reply:
        asked = request.body["messages"][-1]["content"]
        return classifies("TICKETS" if "my ticket" in asked else "MODERATE")(request)

    backends.classifier.on(CHAT, classify)
    settings = settings_of(backends, CATALOGUE_FILE=str(catalogue), CLASSIFIER_MODE="reasoning")
    with running_router(tmp_path, **settings) as router:
        assert router.chat(anew("my ticket"))[1]["x-router-route"] == "tickets"
        router.chat(anew("name a river"))
        assert eventually(lambda: judged(router) == {'route="primary",winner="local"}': 1.0})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (completion("from", finish_reason="length"), "its answer was cut off at its limit"),
        (completion("I look.", tool_calls=[{"id": "1", "function": {"name": "f"}}]), "it calls a tool"),
    ],
)
def test_half_an_answer_of_the_cloud_is_not_compared(
    backends: Lab, tmp_path: Path, answer: dict[str, Any], why: str
) -> None:
    backends.xai.on(CHAT, Plain(answer))
    with running_router(tmp_path, **settings_of(backends)) as router:
        router.chat(anew("name a river"))
        router.wait_for_log(rf"An answer could not be judged: xai \(grok-4\.7\): {why}")
        assert judged(router) == {'route="primary",winner="none"}': 1.0}
    assert not judgements(backends)


def test_a_cloud_that_wants_no_calls_costs_nothing_and_is_asked_another_time(backends: Lab, tmp_path: Path) -> None:
    stored = settings_of(backends, JUDGE_SHARE="0")
    with running_router(tmp_path, **stored) as router:
        last = router.chat(anew("name a river"))[1]["x-session-id"]
        first = router.chat(anew("name a lake"))[1]["x-session-id"]
        router.session(last)
        router.session(first)
    backends.xai.on(CHAT, Plain({"error": "slow down"}, status=429, headers={"retry-after": "60"}))
    figures, said = report(router.data, stored)
    assert said.splitlines()[-1].endswith("not asked, it is busy or cooling down")
    assert (figures["spent_usd"], figures["routes"]["primary"]["without_verdict"]) == (0.0, 1)
    backends.xai.on(CHAT, judging(prefers_local))
    figures, _ = report(router.data, stored)
    assert figures["routes"]["primary"]["compared"] == 1


def test_the_table_is_about_the_present_models(backends: Lab, tmp_path: Path) -> None:
    stored = settings_of(backends, JUDGE_SHARE="0")
    with running_router(tmp_path, **stored) as router:
        for _ in range(2):
            session = router.chat(anew("name a river"))[1]["x-session-id"]
        router.session(session)
    report(router.data, stored, "--limit", "1")
    other = {**stored, "JUDGE_MODEL": "xai/grok-4.20"}
    figures, _ = report(router.data, other)
    assert figures["routes"]["primary"]["compared"] + figures["routes"]["primary"]["without_verdict"] == 1
    assert "1 judgements of other models, earlier ones, are not counted." in shown(router.data, other)


def test_the_budget_is_never_exceeded(backends: Lab, tmp_path: Path) -> None:
    """What three calls can cost at most is reserved: about 7 cents with these prices, of which 3 are spent."""
    settings = settings_of(backends, JUDGE_BUDGET_USD="0.12")
    with running_router(tmp_path, **settings) as router:
        for _ in range(6):
            count = len(backends.xai.calls(CHAT))
            router.chat(anew("name a river"))
            assert eventually(
                lambda count=count: (
                    len(backends.xai.calls(CHAT)) == count + 3
                    or any("Local answers are not judged" in line for line in router.log())
                )
            )
        router.wait_for_log("Local answers are not judged: the budget of 0.12 USD does not suffice for another .* USD")
    figures, _ = report(router.data, settings, "--report")
    assert 0 < figures["spent_usd"] <= 0.12
    assert figures["spent_usd"] == pytest.approx(USD * len(backends.xai.calls(CHAT)))


def test_a_cloud_without_a_price_is_not_asked(backends: Lab, tmp_path: Path) -> None:
    with running_router(tmp_path, **settings_of(backends, JUDGE_MODEL="xai/grok-of-tomorrow")) as router:
        router.chat(anew("name a river"))
        router.wait_for_log(r"Local answers are not judged: what xai/grok-4\.7 or xai/grok-of-tomorrow costs is .*")
    assert not backends.xai.calls(CHAT)


def test_stored_sessions_are_judged_once_and_private_ones_never(backends: Lab, tmp_path: Path) -> None:
    stored = settings_of(backends, JUDGE_SHARE="0")
    with running_router(tmp_path, **stored) as router:
        for text, headers in (("one", {}), ("two", {}), ("mine", {"x-router-policy": "local-only"})):
            router.chat(anew(f"{text} jane@example.org" if text == "two" else text), headers=headers)
        last = router.chat(anew("three"))[1]["x-session-id"]
        router.session(last)
    assert not backends.xai.calls(CHAT)
    # An address has become private since: what has one in it stays at home, too.
    figures, said = report(router.data, {**stored, "PRIVATE_PATTERNS": "email"})
    assert figures["routes"]["primary"]["compared"] == 2
    assert said.splitlines()[0] == f"{last} primary: local (0.0300 USD)"
    assert shown(router.data, stored) in PAGE.read_text()
    again, said = report(router.data, {**stored, "PRIVATE_PATTERNS": "email"})
    assert again == figures
    assert "nothing to judge" in said
    assert not [call for call in backends.xai.requests if b"mine" in call.raw_body or b"jane" in call.raw_body]


def test_a_cloud_that_fails_stops_it_after_three(backends: Lab, tmp_path: Path) -> None:
    stored = settings_of(backends, JUDGE_SHARE="0")
    with running_router(tmp_path, **stored) as router:
        for _ in range(5):
            last = router.chat(anew("name a river"))[1]["x-session-id"]
        router.session(last)
    backends.xai.on(CHAT, Plain({"error": {"message": "no such model"}}, status=404))
    figures, said = report(router.data, stored)
    assert said.splitlines()[-1] == "stopped: 3 in a row could not be judged"
    assert (figures["spent_usd"], figures["routes"]["primary"]["without_verdict"]) == (0.0, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"JUDGE_SHARE": "0.1"}, "JUDGE_SHARE=0.1 needs JUDGE_MODEL: judging spends your money"),
        (
            {"JUDGE_SHARE": "0.1", "JUDGE_MODEL": "primary"},
            "JUDGE_SHARE=0.1 needs JUDGE_BUDGET_USD: judging spends your money",
        ),
        ({"JUDGE_MODEL": "auto"}, "JUDGE_MODEL auto is no model: name one as provider/model"),
        ({"JUDGE_MODEL": "xai/grok-4.3"}, "JUDGE_MODEL xai/grok-4.3: "),
    ],
)
def test_a_set_up_that_cannot_work_is_told_at_the_start(settings: dict[str, str], message: str, tmp_path: Path) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path), PRIMARY_URL="http://127.0.0.1:9", **settings)
    ran = subprocess.run(
        [COMMAND, "doctor"], check=False, env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert message in ran.stderr + ran.stdout
