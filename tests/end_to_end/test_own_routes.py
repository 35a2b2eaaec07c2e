"""An owner's routes: learned while the router runs, told to the classifier, named by clients, counted like others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.config_loading import load_settings
from ai_router.dispatch.plan import plan_answer
from ai_router.providers.building import build_registry
from ai_router.types import DecidedBy, Decision
from tests.end_to_end.conftest import Lab, lab_settings, well_behaved
from tests.fakes.keys import new_key
from tests.fakes.personas import CHAT, anew, classifies
from tests.fakes.router import COMMAND, clean_environment, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream

OWNER = "an-owners-key-of-the-test"
ROUTES = """
[routes.code]
description = "writing, debugging and explaining program code"
chain = ["coder/qwen-coder", "primary"]
max_tokens = 700
examples = [
    "Write a Python function that merges two sorted lists",
    "Why does this TypeScript not compile? const x: number = 'a'",
    "Refactor this class so it can be unit tested",
    "SQL query for the ten customers with the most orders",
    "My bash script stops at the first error, how do I debug it",
]

[routes.legal]
description = "questions of law, contracts and legal documents"
backend = "xai"
examples = [
    "Can my landlord keep the deposit because of small holes in the wall?",
    "Draft a non-disclosure agreement between two companies",
    "What notice period applies if I quit during probation?",
    "Is this clause in my employment contract enforceable: no work for a competitor for two years",
    "Do we need consent under the GDPR to send a newsletter to customers?",
]

[routes.home]
description = "reserved"
backend = "primary"
examples = ["zz qq 1", "zz qq 2", "zz qq 3", "zz qq 4", "zz qq 5"]
"""
PROVIDER = (
    '\n[providers.coder]\nbase_url = "{url}"\nlocal = true\n[providers.coder.models.qwen-coder]\ncontext = 32768\n'
)
CODE = "how can I sort a dict by value in python"
LEGAL = "my employer has not paid overtime for a year, what can I do"
EASY = "thanks, that was kind of you"
UNCLEAR = "flurb gnozzle wex qanto brindlemop trask velluni"


class OwnLab(Lab):
    """With a local backend for code."""

    coder: FakeUpstream
    folder: Path
    environment: dict[str, str]

    def reset(self) -> None:
        super().reset()
        self.coder.reset()
        self.coder.on(CHAT, Plain({"choices": [{"message": {"role": "assistant", "content": "from the coder"}}]}))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments], check=False, env=self.environment, cwd=self.folder, capture_output=True, text=True
        )

    def ask(self, text: str, key: str = OWNER, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        sent = {"authorization": f"Bearer {key}", **(headers or {})}
        status, answered, body = self.router.chat(text, headers=sent, **fields)
        return status, {name.lower(): value for name, value in answered.items()}, body


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnLab]:
    folder = tmp_path_factory.mktemp("own-routes")
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai, fake_upstream() as coder:
        well_behaved(classifier, primary, xai)
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(ROUTES + PROVIDER.format(url=coder.url))
        settings = lab_settings(classifier, primary, xai) | {
            "FAST_ROUTING": "on",
            "SHADOW_SHARE": "1",
            "VIRTUAL_KEYS": "on",
            "AI_ROUTER_API_KEYS": OWNER,
            "AI_ROUTER_ADMIN_KEY": "an-admins-key",
            "CATALOGUE_FILE": str(catalogue),
            "DATABASE_URL": f"sqlite:///{folder / 'router.db'}",
        }
        with running_router(folder, **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            router.wait_for_log("Fast path: the sentence vectors are loaded")
            lab = OwnLab(classifier, primary, xai, router)
            lab.coder, lab.folder = coder, folder
            lab.environment = clean_environment(DATA_DIR=str(router.data), **settings)
            router.wait_for_log(r"Not learned yet, or changed since: code, legal, home .*")
            lab.learned = lab.command("learn")  # type: ignore[attr-defined]
            router.wait_for_log("Fast path: knows the routes code, legal, home")
            yield lab


@pytest.fixture
def lab(shared: OwnLab) -> OwnLab:
    shared.reset()
    return shared


def test_learning_says_how_each_route_went(lab: OwnLab) -> None:
    told = lab.learned  # type: ignore[attr-defined]
    assert told.returncode == 0, told.stderr
    assert "code: knows 5 of its 5 examples; takes " in told.stdout
    assert "3 learned in " in told.stdout


def test_a_prompt_like_the_examples_goes_to_the_routes_own_backend(lab: OwnLab) -> None:
    status, headers, body = lab.ask(anew(CODE))
    assert (status, b"from the coder" in body) == (200, True)
    assert (headers["x-router-route"], headers["x-router-model"]) == ("code", "qwen-coder")
    assert (headers["x-router-decided-by"], headers["x-router-confidence"]) == ("fast", "unknown")
    assert headers["x-router-reason"].startswith("fast path: like the examples of code (")
    assert not lab.classifier.calls(CHAT)
    assert lab.ask(anew(LEGAL))[1]["x-router-route"] == "legal"


def test_others_go_where_they_went(lab: OwnLab) -> None:
    _, headers, _ = lab.ask(anew(EASY))
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("primary", "fast")


def test_the_classifier_is_told_of_the_routes_and_may_choose_one(lab: OwnLab) -> None:
    lab.classifier.on(CHAT, classifies("CODE"))
    _, headers, _ = lab.ask(anew(UNCLEAR))
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("code", "classifier")
    asked = lab.classifier.calls(CHAT)[-1].body
    assert asked["structured_outputs"]["choice"] == ["MODERATE", "COMPLEX", "ENRICH", "CODE", "LEGAL", "HOME"]
    assert asked["max_tokens"] == 3, "CODE and COMPLEX differ in their third letter"
    assert "\nCODE - writing, debugging and explaining program code. For" in asked["messages"][0]["content"]


def test_what_the_classifier_said_is_kept(lab: OwnLab) -> None:
    lab.classifier.on(CHAT, classifies("LEGAL"))
    text = anew(UNCLEAR)
    assert [lab.ask(text)[1]["x-router-decided-by"] for _ in range(2)] == ["classifier", "cache"]
    assert lab.ask(text)[1]["x-router-route"] == "legal"


def test_a_client_may_name_it(lab: OwnLab) -> None:
    _, headers, _ = lab.ask("hello", model="code")
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("code", "explicit")
    names = {entry["id"]: entry for entry in orjson.loads(lab.router.get("/v1/models", bearer(OWNER))[2])["data"]}
    assert names["code"]["description"] == "writing, debugging and explaining program code"
    assert names["code"]["owned_by"] == "ai-router"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("asked", "sent"), [(None, 700), (5000, 700), (20, 20)])
def test_its_answers_have_at_most_so_many_tokens(lab: OwnLab, asked: int | None, sent: int) -> None:
    lab.ask(anew(CODE), **({} if asked is None else {"max_tokens": asked}))
    assert lab.coder.calls(CHAT)[-1].body["max_tokens"] == sent


def test_in_another_api_too(lab: OwnLab) -> None:
    body = {"model": "auto", "input": anew(CODE), "max_output_tokens": 9000}
    connection = lab.router.connection()
    connection.request(
        "POST", "/v1/responses", orjson.dumps(body), bearer(OWNER) | {"content-type": "application/json"}
    )
    response = connection.getresponse()
    assert (response.status, response.getheader("x-router-route")) == (200, "code"), response.read()
    connection.close()
    assert lab.coder.calls(CHAT)[-1].body["max_tokens"] == 700


def test_if_its_backend_cannot_the_next_of_its_chain_stands_in(lab: OwnLab) -> None:
    lab.coder.on(CHAT, Plain({"error": "boom"}, status=500))
    status, headers, _ = lab.ask(anew(CODE))
    assert (status, headers["x-router-route"]) == (200, "primary")


def test_a_turn_that_goes_on_stays_there(lab: OwnLab) -> None:
    first = {"role": "user", "content": anew(CODE)}
    lab.ask("", messages=[first])
    answer = {"role": "assistant", "content": "from the coder"}
    _, headers, _ = lab.ask("", messages=[first, answer, {"role": "user", "content": "go on"}])
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("code", "conversation")


def test_a_local_only_request_goes_there_if_it_is_local_and_stays_at_home_if_not(lab: OwnLab) -> None:
    policy = {"x-router-policy": "local-only"}
    _, headers, _ = lab.ask(anew(CODE), headers=policy)
    assert (headers["x-router-route"], headers["x-router-decided-by"]) == ("code", "policy")
    assert lab.ask(anew(LEGAL), headers=policy)[1]["x-router-route"] == "primary"
    assert not lab.xai.calls(CHAT)


def test_session_usage_and_metrics_have_it(lab: OwnLab) -> None:
    _, headers, _ = lab.ask(anew(CODE))
    session = lab.router.session(headers["x-session-id"])
    assert (session["route"], session["decision"]["label"]) == ("code", "CODE")
    admin = bearer("an-admins-key")
    usage = orjson.loads(lab.router.get("/api/usage?by=route", admin)[2])
    assert "code" in orjson.dumps(usage).decode()
    metrics = lab.router.get("/metrics", admin)[2].decode()
    assert 'ai_router_decisions_total{decided_by="fast",label="CODE"}' in metrics
    listed = orjson.loads(lab.router.get("/api/sessions?route=code", admin)[2])
    assert {row["route"] for row in listed["data"]} == {"code"}


def test_the_head_is_not_put_out_of_service_by_what_the_classifier_makes_of_a_route(lab: OwnLab) -> None:
    """The shadow asks about each decision of the head's, but those."""
    lab.classifier.on(CHAT, classifies("CODE"))
    for _ in range(30):
        lab.ask(anew(EASY))
        lab.ask(anew(CODE))
    assert eventually(lambda: len(lab.classifier.calls(CHAT)) >= 30)
    metrics = lab.router.get("/metrics", bearer("an-admins-key"))[2].decode()
    assert "ai_router_head_in_service 1.0" in metrics


def test_a_key_needs_the_route_if_it_leads_to_a_cloud(lab: OwnLab) -> None:
    database = lab.environment["DATABASE_URL"]
    with_route = new_key(database, "--routes", "primary,legal")[1]
    without = new_key(database, "--routes", "primary")[1]
    assert eventually(lambda: lab.ask("hello", key=without)[0] == 200)
    assert eventually(lambda: lab.ask("hello", key=with_route)[0] == 200)
    assert lab.ask("hello", key=with_route, model="legal")[0] == 200
    status, _, body = lab.ask("hello", key=without, model="legal")
    assert (status, orjson.loads(body)["error"]["code"]) == (403, "route_not_allowed")
    status, headers, _ = lab.ask(anew(LEGAL), key=without)
    assert (status, headers["x-router-route"]) == (200, "primary"), "what is decided is answered by what is left"
    assert "the key does not permit legal" in headers["x-router-reason"]
    assert lab.ask(anew(CODE), key=without)[1]["x-router-route"] == "code", "what is local goes with primary"


def test_a_route_that_a_reload_takes_away_meanwhile_leaves_the_primary() -> None:
    """The decision was made before; the registry has no such route any more."""
    registry = build_registry(load_settings({"PRIMARY_URL": "http://127.0.0.1:9"}, dotenv=None))
    plan = plan_answer(Decision("GONE", "gone", DecidedBy.CLASSIFIER, "why"), registry, cloud_fallback=True)
    assert (plan.route, plan.candidates[0].backend.name) == ("primary", "primary")
    assert plan.note == "there is no route 'gone' any more"


def test_a_dry_run_says_it(lab: OwnLab) -> None:
    body = {"messages": [{"role": "user", "content": anew(CODE)}]}
    connection = lab.router.connection()
    connection.request("POST", "/v1/route", orjson.dumps(body), bearer(OWNER) | {"content-type": "application/json"})
    found = orjson.loads(connection.getresponse().read())
    connection.close()
    assert (found["label"], found["route"], found["leaves"]) == ("CODE", "code", False)
    assert [one["backend"] for one in found["would_ask"]] == ["coder", "primary"]
    told = lab.command("route", CODE, "--json")
    assert orjson.loads(told.stdout)["route"] == "code"


def test_people_can_say_that_a_request_was_meant_for_it_and_learning_hears_it(lab: OwnLab) -> None:
    text = "the giraffes of the northern meadow hum at dusk"
    for _ in range(3):
        _, headers, _ = lab.ask(anew(text))
        assert headers["x-router-route"] == "primary"
        verdict = {"request_id": headers["x-request-id"], "should_be": "home"}
        connection = lab.router.connection()
        connection.request(
            "POST", "/v1/feedback", orjson.dumps(verdict), bearer(OWNER) | {"content-type": "application/json"}
        )
        answer = orjson.loads(connection.getresponse().read())
        connection.close()
        assert (answer["label"], answer["example"]) == ("HOME", True)
    told = lab.command("learn")
    assert "home: knows 8 of its 8 examples" in told.stdout, told.stdout + told.stderr
    assert eventually(lambda: lab.ask(anew(text))[1]["x-router-route"] == "home")


def test_eval_measures_it_beside_the_others(lab: OwnLab, tmp_path: Path) -> None:
    rows = [{"text": CODE, "label": "CODE"}, {"text": EASY, "label": "MODERATE"}]
    (tmp_path / "mine.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    told = lab.command("eval", str(tmp_path / "mine.jsonl"), "--json")
    head = orjson.loads(told.stdout)["deciders"]["head"]
    assert (head["accuracy"], head["classes"]["CODE"]["recall"]) == (1.0, 1.0)
    assert "CODE 1" in lab.command("eval", str(tmp_path / "mine.jsonl")).stdout.splitlines()[0]


def test_a_reload_takes_a_route_away_and_nothing_goes_there_any_more(lab: OwnLab) -> None:
    """The last test: it changes the catalogue."""
    lab.classifier.on(CHAT, classifies("LEGAL"))
    text = anew(UNCLEAR)
    assert lab.ask(text)[1]["x-router-route"] == "legal"
    catalogue = lab.folder / "catalogue.toml"
    kept = (
        catalogue.read_text().replace("[routes.legal]", "[routes.other]").replace("[routes.code]", "[routes.program]")
    )
    catalogue.write_text(kept)
    assert lab.command("reload").returncode == 0
    assert eventually(lambda: lab.ask("hello", model="legal")[0] == 404)
    lab.classifier.on(CHAT, classifies("MODERATE"))
    assert lab.ask(text)[1]["x-router-route"] == "primary", "what was kept of it is not used"
    assert lab.ask(anew(CODE))[1]["x-router-route"] == "primary", "it has to be learned under its new name"
    assert lab.command("learn").returncode == 0
    assert eventually(lambda: lab.ask(anew(CODE))[1]["x-router-route"] == "program")
