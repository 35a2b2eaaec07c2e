"""Virtual keys: who is let in, what a key permits, its limits, its budgets, and what happens without Redis."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, well_behaved
from tests.end_to_end.test_replicas import shared_state
from tests.fakes.clients import RawClient
from tests.fakes.keys import keys_command, new_key
from tests.fakes.personas import CHAT, SEARCH, anew, chunk, classifies, completion
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Stream, fake_upstream
from tests.fakes.valkey import RunningValkey, running_valkey

OWNERS = "the-owners-own-key"
DIME = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20, "cost_in_usd_ticks": 1_000_000_000}
"""What xAI reports of an answer for which it charges ten cents."""


@dataclass
class Lab:
    router: RunningRouter
    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream
    valkey: RunningValkey
    database: str

    def key(self, *options: str) -> str:
        """The secret of a new key, which the router knows."""
        _, secret = new_key(self.database, *options)
        assert eventually(lambda: self.ask(secret, path="/v1/models")[0] == 200)
        return secret

    def ask(self, secret: str, path: str = "", **fields: Any) -> tuple[int, dict[str, str], Any]:
        headers = {"Authorization": f"Bearer {secret}"}
        if path:
            status, answered, body = self.router.get(path, headers)
        else:
            status, answered, body = self.router.chat(anew(), headers, **fields)
        return status, answered, orjson.loads(body)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "valkey").mkdir()
    database = f"sqlite:///{folder / 'usage.db'}"
    with (
        fake_upstream() as classifier,
        fake_upstream() as primary,
        fake_upstream() as xai,
        running_valkey(folder / "valkey") as valkey,
    ):
        well_behaved(classifier, primary, xai)
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "FAST_ROUTING": "off",
            "BREAKER_FAILURES": "1000",
            "VIRTUAL_KEYS": "on",
            "AI_ROUTER_API_KEYS": OWNERS,
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database,
        }
        with running_router(folder / "router", **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            yield Lab(router, classifier, primary, xai, valkey, database)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    for fake in (shared.classifier, shared.primary, shared.xai):
        fake.reset()
    well_behaved(shared.classifier, shared.primary, shared.xai)
    return shared


# Who is let in.


def test_only_who_shows_a_key_is_let_in(lab: Lab) -> None:
    assert lab.ask("sk-air-nobodys-at-all")[2]["error"]["code"] == "invalid_api_key"
    assert lab.router.chat("hello")[0] == 401
    assert lab.ask(OWNERS)[0] == 200
    assert lab.ask(lab.key())[0] == 200


def test_a_revoked_key_is_dead_within_seconds_and_another_secret_takes_its_place(lab: Lab) -> None:
    key_id, first = new_key(lab.database)
    assert eventually(lambda: lab.ask(first)[0] == 200)
    rotated = orjson.loads(keys_command(lab.database, "rotate", key_id, "--json").stdout)["secret"]
    assert eventually(lambda: lab.ask(first)[0] == 401, 5)
    assert lab.ask(rotated)[0] == 200
    keys_command(lab.database, "revoke", key_id)
    assert eventually(lambda: lab.ask(rotated)[0] == 401, 5)


def test_the_command_lists_keys_without_their_secrets(lab: Lab) -> None:
    key_id, secret = new_key(lab.database, "--org", "acme", "--rpm", "7")
    listed = keys_command(lab.database, "list").stdout
    (line,) = [line for line in listed.splitlines() if line.startswith(key_id)]
    assert "good" in line
    assert "org=acme" in line
    assert "rpm=7" in line
    assert secret not in listed
    unknown = keys_command(lab.database, "revoke", "vk-unknown")
    assert (unknown.returncode, unknown.stderr) == (2, "ai-router: there is no key 'vk-unknown', or it is revoked\n")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("one", "--daily-usd", "nan"), "must be a number"),
        (("one", "--routes", " , "), "must name one at least"),
        (("  ",), "must not be empty"),
    ],
    ids=["amount", "no route", "name"],
)
def test_a_key_that_could_not_mean_what_it_says_is_not_made(lab: Lab, options: tuple[str, ...], why: str) -> None:
    refused = keys_command(lab.database, "create", *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr


def test_a_route_that_nobody_knows_is_told(lab: Lab) -> None:
    made = keys_command(lab.database, "create", "one", "--routes", "primary,nonsense")
    assert made.returncode == 0
    assert "there is no route 'nonsense' here; there are" in made.stderr
    assert keys_command(lab.database, "create", "one", "--routes", "primary,openai").stderr.count("\n") == 1


def test_a_broken_database_is_told_and_not_taken_for_one_without_keys(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'usage.db'}"
    new_key(database)
    with (tmp_path / "usage.db").open("r+b") as file:
        file.write(b"no database, and never was one.")
    listed = keys_command(database, "list")
    assert (listed.returncode, listed.stdout) == (2, "")
    assert "the database was broken, and no key in it is known any more" in listed.stderr
    assert "usage.db.broken-" in listed.stderr


def test_a_keys_usage_and_sessions_are_its_own_and_its_orgs(lab: Lab) -> None:
    key_id, secret = new_key(lab.database, "--org", "acme")
    assert eventually(lambda: lab.ask(secret, path="/v1/models")[0] == 200)
    headers = {"Authorization": f"Bearer {secret}", "x-org-id": "somebody-elses"}
    session = lab.router.chat(anew(), headers)[1]["x-session-id"]
    document = lab.ask(secret, path=f"/api/sessions/{session}")[2]
    assert (document["client"], document["organization"]) == (key_id, "acme")
    assert lab.ask(secret, path="/api/usage")[2]["total"]["requests"] == 1
    assert lab.ask(lab.key(), path=f"/api/sessions/{session}")[0] == 404
    # What all keys do together is the owner's to see.
    assert lab.ask(secret, path="/metrics")[2]["error"]["code"] == "forbidden"


def test_no_secret_is_written_anywhere(lab: Lab) -> None:
    secret = lab.key()
    lab.router.chat(f"my key is {secret}", {"Authorization": f"Bearer {secret}"})
    lab.ask(OWNERS, path="/api/usage")
    files = [path for path in lab.router.data.parent.parent.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


# What a key permits.


def test_a_key_goes_where_the_decision_says_and_names_no_model_by_itself(lab: Lab) -> None:
    secret = lab.key()
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    assert lab.ask(secret)[1]["x-router-route"] == "xai"
    assert lab.ask(secret, model="xai")[0] == 200
    status, _, body = lab.ask(secret, model="xai/grok-4.3")
    assert (status, body["error"]["code"], body["error"]["param"]) == (403, "model_not_allowed", "model")
    assert lab.ask(lab.key("--models", "xai/grok-4*"), model="xai/grok-4.3")[0] == 200


def test_a_list_of_models_has_those_that_the_key_may_name(lab: Lab) -> None:
    def listed(secret: str, path: str) -> set[str]:
        document = lab.ask(secret, path)[2]
        return {entry.get("id") or entry["name"] for entry in document.get("data") or document["models"]}

    local = lab.key("--routes", "primary")
    for path in ("/v1/models", "/api/tags"):
        assert {"auto", "primary"} < listed(local, path)
        assert not [name for name in listed(local, path) if name.startswith("xai")]
        assert {"xai", "xai/grok-4.7"} <= listed(OWNERS, path)


@pytest.mark.parametrize(
    ("options", "fields", "code"),
    [
        ((), {"models": ["anthropic/claude-opus-5.5"]}, "model_not_allowed"),
        ((), {"plugins": [{"id": "web"}]}, "model_not_allowed"),
        (("--daily-usd", "1"), {"service_tier": "priority"}, "price_unknown"),
        (("--daily-usd", "1"), {"speed": "fast"}, "price_unknown"),
        (("--daily-usd", "1"), {"provider": {"sort": "latency"}}, "price_unknown"),
    ],
    ids=["models", "plugins", "tier", "speed", "provider"],
)
def test_no_field_of_a_provider_gets_around_it(
    lab: Lab, options: tuple[str, ...], fields: dict[str, Any], code: str
) -> None:
    status, _, body = lab.ask(lab.key(*options), **fields)
    assert (status, body["error"]["code"], body["error"]["param"]) == (403, code, next(iter(fields)))
    assert lab.ask(OWNERS, **fields)[0] == 200


def test_a_key_for_the_primary_alone_never_reaches_a_cloud(lab: Lab) -> None:
    secret = lab.key("--routes", "primary,meta")
    for label in ("COMPLEX", "ENRICH"):
        lab.classifier.on(CHAT, classifies(label))
        _, headers, _ = lab.ask(secret)
        assert headers["x-router-route"] == "primary"
        assert "the key does not permit" in headers["x-router-reason"]
    lab.primary.on(CHAT, Plain({"error": {"message": "down"}}, 500))
    assert lab.ask(secret)[0] >= 500
    for model in ("xai", "enrich"):
        assert lab.ask(secret, model=model)[2]["error"]["code"] == "route_not_allowed"
    assert not lab.xai.calls(CHAT)
    assert not lab.xai.calls(SEARCH)


def test_what_is_passed_on_without_a_decision_needs_its_route(lab: Lab) -> None:
    with openai.OpenAI(base_url=f"{lab.router.url}/v1", api_key=lab.key("--routes", "primary"), max_retries=0) as sdk:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            sdk.embeddings.create(model="auto", input="hello")
        assert caught.value.code == "route_not_allowed"
        with pytest.raises(openai.PermissionDeniedError):
            sdk.images.generate(prompt="a cat")


# Limits.


def test_as_many_requests_a_minute_as_may_be_and_the_headers_tell(lab: Lab) -> None:
    secret = lab.key("--rpm", "5")
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(lambda _: lab.ask(secret), range(12)))
    assert sorted(status for status, _, _ in answers) == [200] * 5 + [429] * 7
    left = sorted(int(headers["x-ratelimit-remaining-requests"]) for status, headers, _ in answers if status == 200)
    assert left == [0, 1, 2, 3, 4]
    _, headers, body = lab.ask(secret)
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert body["error"]["type"] == "rate_limit_error"
    assert 0 < int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-limit-requests"] == "5"


def test_other_endpoints_count_for_the_same_limit(lab: Lab) -> None:
    secret = lab.key("--rpm", "2")
    for path in ("/v1/route", "/v1/embeddings", "/v1/embeddings"):
        connection = lab.router.connection()
        body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}], "input": "hi"})
        connection.request("POST", path, body, {"Authorization": f"Bearer {secret}"})
        response = connection.getresponse()
        response.read()
        connection.close()
    assert response.status == 429
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


def test_one_at_a_time_never_starves_who_asks_one_after_the_other(lab: Lab) -> None:
    secret = lab.key("--concurrency", "1")
    with openai.OpenAI(base_url=f"{lab.router.url}/v1", api_key=secret, max_retries=0) as sdk:
        for number in range(40):
            for _ in sdk.chat.completions.create(
                model="primary", messages=[{"role": "user", "content": str(number)}], stream=True
            ):
                pass


def test_one_at_a_time_refuses_the_second(lab: Lab) -> None:
    secret = lab.key("--concurrency", "1")
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    client = RawClient(lab.router.port)
    client.send_chat(text=anew(), stream=True, model="primary", headers=f"Authorization: Bearer {secret}\r\n")
    client.read_until(b"first")
    status, _, body = lab.ask(secret, model="primary")
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    client.leave()
    lab.primary.on(CHAT, Plain(completion("well")))
    assert eventually(lambda: lab.ask(secret, model="primary")[0] == 200)


# Budgets.


def break_off_an_answer(lab: Lab, secret: str) -> None:
    """A stream of xAI's that breaks off, so that nobody knows what it has cost."""
    lab.xai.on(CHAT, Stream([chunk({"content": "half"})], ending="reset"))
    client = RawClient(lab.router.port)
    client.send_chat(text=anew(), stream=True, model="xai", headers=f"Authorization: Bearer {secret}\r\n")
    client.read_until(b"error")
    client.leave()


def start_redis_anew(lab: Lab) -> None:
    """What Redis knew is gone."""
    lab.valkey.stop()
    assert eventually(lambda: not shared_state(lab.router)["ok"])
    lab.valkey.start()
    assert eventually(lambda: shared_state(lab.router)["ok"])


def test_fifty_at_the_same_time_cost_no_more_than_the_budget(lab: Lab) -> None:
    secret = lab.key("--daily-usd", "1")
    lab.xai.on(CHAT, Plain({**completion("dear"), "usage": DIME}, delay=0.05))
    # The most that one can cost: 20,000 tokens at 6 USD a million, 12 cents, and a little for the question.
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: lab.ask(secret, model="xai", max_tokens=20_000), range(50)))
    answered = [status for status, _, _ in answers].count(200)
    refused = [body["error"]["code"] for status, _, body in answers if status != 200]
    assert answered + len(refused) == 50
    assert set(refused) == {"budget_exhausted"}
    assert 1 <= answered <= 10
    usage = lab.ask(secret, path="/api/usage")[2]["total"]
    assert usage["cost_usd"] <= 1 + 1e-9
    # And what was reserved beyond the bills is free again, until nothing is left.
    while lab.ask(secret, model="xai", max_tokens=20_000)[0] == 200:
        pass
    assert 0.85 <= lab.ask(secret, path="/api/usage")[2]["total"]["cost_usd"] <= 1 + 1e-9


def test_a_request_without_a_limit_gets_one(lab: Lab) -> None:
    lab.ask(lab.key("--daily-usd", "1"), model="xai")
    assert lab.xai.calls(CHAT)[-1].body["max_tokens"] == 4096
    lab.ask(lab.key(), model="xai")
    assert "max_tokens" not in lab.xai.calls(CHAT)[-1].body


def test_a_null_is_no_limit_and_takes_none_away(lab: Lab) -> None:
    secret = lab.key("--daily-usd", "1")
    lab.ask(secret, model="xai", max_completion_tokens=None)
    assert lab.xai.calls(CHAT)[-1].body == lab.xai.calls(CHAT)[-1].body | {"max_tokens": 4096}
    assert "max_completion_tokens" not in lab.xai.calls(CHAT)[-1].body


def test_a_used_up_budget_says_when_it_begins_anew_and_what_is_free_goes_on(lab: Lab) -> None:
    secret = lab.key("--daily-usd", "0.000001")
    status, headers, body = lab.ask(secret, model="xai")
    assert (status, body["error"]["code"]) == (429, "budget_exhausted")
    assert 0 < int(headers["retry-after"]) <= 86_400
    assert lab.ask(secret)[1]["x-router-route"] == "primary"


def test_a_key_may_rather_be_answered_at_home(lab: Lab) -> None:
    secret = lab.key("--monthly-usd", "0.000001", "--at-limit", "local")
    for label in ("COMPLEX", "ENRICH"):
        lab.classifier.on(CHAT, classifies(label))
        status, headers, _ = lab.ask(secret)
        assert (status, headers["x-router-route"]) == (200, "primary")
        assert "the budget for the month is used up" in headers["x-router-reason"]
    assert not lab.xai.calls(SEARCH)


def test_a_model_without_a_price_is_not_for_a_key_with_a_budget(lab: Lab) -> None:
    secret = lab.key("--daily-usd", "5", "--models", "*")
    status, _, body = lab.ask(secret, model="xai/grok-of-tomorrow")
    assert (status, body["error"]["code"]) == (403, "price_unknown")


def test_a_bill_that_nobody_knows_costs_all_that_was_reserved(lab: Lab) -> None:
    # A reservation of 4,096 tokens at 6 USD a million: 2.5 cents. One fits, two do not.
    secret = lab.key("--daily-usd", "0.04")
    break_off_an_answer(lab, secret)
    lab.xai.on(CHAT, Plain(completion("well")))
    # Settled: nothing is reserved any more.
    assert eventually(lambda: not lab.valkey.client().keys("ai-router:key:*:reserved"))
    assert lab.ask(secret, model="xai")[2]["error"]["code"] == "budget_exhausted"


def test_what_was_spent_is_known_after_a_new_start_of_redis(lab: Lab) -> None:
    secret = lab.key("--daily-usd", "0.12")
    lab.xai.on(CHAT, Plain({**completion("dear"), "usage": DIME}))
    assert lab.ask(secret, model="xai")[0] == 200
    start_redis_anew(lab)
    assert lab.ask(secret, model="xai")[2]["error"]["code"] == "budget_exhausted"


def test_nor_does_a_new_start_give_back_what_a_broken_answer_has_cost(lab: Lab) -> None:
    secret = lab.key("--daily-usd", "0.04")
    break_off_an_answer(lab, secret)
    start_redis_anew(lab)
    lab.xai.on(CHAT, Plain(completion("well")))
    assert lab.ask(secret, model="xai")[2]["error"]["code"] == "budget_exhausted"


# Without Redis.


def test_while_redis_is_away_keys_go_on_but_nothing_is_spent(lab: Lab) -> None:
    plain, limited, budgeted = lab.key(), lab.key("--rpm", "3"), lab.key("--daily-usd", "5")
    lab.valkey.stop()
    try:
        assert eventually(lambda: not shared_state(lab.router)["ok"])
        assert lab.ask(plain)[0] == 200
        assert lab.ask(OWNERS)[0] == 200
        assert [lab.ask(limited)[0] for _ in range(4)] == [200, 200, 200, 429]
        status, _, body = lab.ask(budgeted)
        assert (status, body["error"]["code"]) == (503, "budget_unavailable")
    finally:
        lab.valkey.start()
    assert eventually(lambda: lab.ask(budgeted)[0] == 200)


def test_a_running_request_ends_though_redis_is_away(lab: Lab) -> None:
    secret = lab.key("--concurrency", "1")
    lab.primary.on(CHAT, Hang())
    client = RawClient(lab.router.port)
    client.send_chat(text=anew(), model="primary", headers=f"Authorization: Bearer {secret}\r\n")
    assert eventually(lambda: lab.primary.calls(CHAT))
    lab.valkey.stop()
    client.leave()
    lab.valkey.start()
    assert eventually(lambda: shared_state(lab.router)["ok"])
    lab.primary.on(CHAT, Plain(completion("well")))
    assert eventually(lambda: lab.ask(secret, model="primary")[0] == 200)


def test_without_a_redis_of_ones_own_one_is_started(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'usage.db'}"
    _, secret = new_key(database, "--rpm", "1")
    with fake_upstream() as primary:
        primary.on(CHAT, Plain(completion("well")))
        settings = {"PRIMARY_URL": primary.url, "VIRTUAL_KEYS": "on", "DATABASE_URL": database}
        with running_router(tmp_path / "router", **settings) as router:
            headers = {"Authorization": f"Bearer {secret}"}
            assert [router.chat(anew(), headers)[0] for _ in range(2)] == [200, 429]


def test_a_limit_is_exact_over_two_routers_with_four_workers_each(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'usage.db'}"
    _, secret = new_key(database, "--rpm", "100")
    headers = {"Authorization": f"Bearer {secret}"}
    (tmp_path / "valkey").mkdir()
    with fake_upstream() as primary, running_valkey(tmp_path / "valkey") as valkey:
        primary.on(CHAT, Plain(completion("well")))
        settings = {
            "PRIMARY_URL": primary.url,
            "VIRTUAL_KEYS": "on",
            "DATABASE_URL": database,
            "REDIS_URL": valkey.url,
            "WORKERS": "4",
        }
        with (
            running_router(tmp_path / "one", **settings) as one,
            running_router(tmp_path / "other", **settings) as other,
            ThreadPoolExecutor(16) as clients,
        ):
            assert eventually(lambda: shared_state(one)["processes"] == shared_state(other)["processes"] == 8, 30)
            answers = list(clients.map(lambda n: (one, other)[n % 2].chat(anew(), headers)[0], range(200)))
    assert answers.count(200) == 100
    assert answers.count(429) == 100
