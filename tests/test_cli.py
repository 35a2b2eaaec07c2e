"""The command line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ai_router import __version__
from ai_router.cli.learning import own_examples
from ai_router.cli.main import main
from ai_router.learning.distillation import examples_from_sessions
from ai_router.storage.feedback import FeedbackStore
from tests.fakes.personas import CHAT, classifies
from tests.fakes.upstream import FakeUpstream, Plain
from tests.fakes.valkey import running_valkey
from tests.stored_sessions import session


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs ``ai-router`` with just these settings."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str, **settings: str) -> Result:
        monkeypatch.setattr("os.environ", dict(settings))
        return CliRunner().invoke(main, words)

    return command


def test_version(run) -> None:
    assert __version__ in run("--version").output


def test_route_explains_a_decision_of_the_fast_path(run) -> None:
    result = run("route", "weather in Rome tomorrow")
    assert result.exit_code == 0
    assert re.match(r"ENRICH -> enrich \(decided by fast, confidence [01]\.\d\d\)\n", result.output)
    assert "fast path: reads like ENRICH" in result.output
    assert "asked 'weather in Rome tomorrow', for it: " in result.output


def test_route_asks_the_classifier_where_there_is_one(run, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, classifies("COMPLEX", probability=0.8))
    result = run("route", "--json", "prove it", ROUTER_URL=upstream.url, FAST_ROUTING="off")
    decision = json.loads(result.output)
    assert (decision["label"], decision["route"], decision["decided_by"]) == ("COMPLEX", "xai", "classifier")
    assert decision["confidence"] == 0.8


def test_a_bad_setting_is_one_line(run) -> None:
    result = run("route", "x", PORT="eighty")
    assert (result.exit_code, result.output) == (2, "ai-router: PORT must be a whole number, not 'eighty'\n")


def test_doctor_finds_all_well(run, upstream: FakeUpstream) -> None:
    result = run("doctor", PRIMARY_URL=upstream.url, XAI_API_URL=upstream.url)
    assert result.exit_code == 0, result.output
    assert "primary: " in result.output
    assert "no cloud: no key" in result.output
    assert result.output.endswith("all is well\n")


def test_doctor_names_routes_that_are_not_learned_yet(run, upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.on("/v1/models", Plain({"data": []}))
    (tmp_path / "mine.toml").write_text(
        '[routes.code]\ndescription = "code"\nbackend = "primary"\nexamples = ["a1", "a2", "a3", "a4", "a5"]\n'
    )
    settings = {"PRIMARY_URL": upstream.url, "CATALOGUE_FILE": str(tmp_path / "mine.toml")}
    said = "note: not learned yet, or changed since: code ('ai-router learn')"
    assert said in run("doctor", **settings).output
    assert "code: knows 5 of its 5 examples" in run("learn", **settings).output
    assert said not in run("doctor", **settings).output


@pytest.mark.parametrize(("in_memory", "said"), [(["big:latest"], True), (["big:latest", "small"], False)])
def test_doctor_says_that_two_models_may_be_in_each_others_way(
    run, upstream: FakeUpstream, in_memory: Sequence[str], said: bool
) -> None:
    names = ["big:latest", "small"]
    upstream.on("/v1/models", Plain({"data": [{"id": name, "owned_by": "library"} for name in names]}))
    upstream.on("/api/version", Plain({"version": "0.15.0"}))
    upstream.on("/api/tags", Plain({"models": [{"name": name} for name in names]}))
    upstream.on("/api/ps", Plain({"models": [{"name": name} for name in in_memory]}))
    one = {"PRIMARY_URL": upstream.url, "PRIMARY_MODEL": "big", "ROUTER_URL": upstream.url, "ROUTER_MODEL": "small"}
    result = run("doctor", **one)
    assert ("note: classifier and primary are two models of one Ollama" in result.output) is said
    assert result.exit_code == 0


def test_doctor_names_what_is_wrong_and_no_key(run, upstream: FakeUpstream) -> None:
    upstream.on("/v1/models", Plain({"error": "Incorrect API key provided: s3cret"}, status=400))
    result = run("doctor", PRIMARY_URL=upstream.url, XAI_API_URL=upstream.url, XAI_API_KEY="s3cret")
    assert result.exit_code == 1
    assert "problem: xai is not well: HTTP 400: Incorrect API key provided\n" in result.output
    assert "s3cret" not in result.output


def test_doctor_asks_every_backend_also_beside_the_embedded_model(run) -> None:
    result = run("doctor", ROUTER_URL="http://127.0.0.1:9", XAI_API_URL="http://127.0.0.1:9", XAI_API_KEY="k")
    assert result.exit_code == 1
    assert "problem: classifier is not well: connection refused\n" in result.output
    assert "problem: xai is not well: connection refused\n" in result.output


def test_route_keeps_what_is_private_from_the_classifier(run, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, classifies("COMPLEX"))
    settings = {"ROUTER_URL": upstream.url, "FAST_ROUTING": "off", "PRIVATE_PATTERNS": "card"}
    decision = json.loads(run("route", "--json", "prove 4111 1111 1111 1111", **settings).output)
    assert (decision["route"], decision["decided_by"], decision["leaves"]) == ("primary", "policy", False)
    assert not upstream.calls(CHAT)


def test_a_private_pattern_that_is_no_expression_is_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[private]\ncustomers = '('\n")
    result = run("route", "x", CATALOGUE_FILE=str(tmp_path / "mine.toml"))
    assert result.exit_code == 2
    assert result.output.startswith(f"ai-router: CATALOGUE_FILE {tmp_path / 'mine.toml'}: private.customers: missing )")


def test_doctor_asks_redis(run, upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.on("/v1/models", Plain({"data": []}))
    with running_valkey(tmp_path) as valkey:
        result = run("doctor", PRIMARY_URL=upstream.url, REDIS_URL=valkey.url)
        assert re.search(r"^redis: valkey \d+\.\S+, ok, \d+ ms$", result.output, re.MULTILINE), result.output
        assert result.exit_code == 0
    result = run("doctor", PRIMARY_URL=upstream.url, REDIS_URL=f"redis://:s3cret@127.0.0.1:{valkey.port}/0")
    assert "problem: REDIS_URL: Redis cannot be reached: " in result.output
    assert "s3cret" not in result.output
    assert result.exit_code == 1


def test_doctor_finds_what_cannot_be_written_and_names_nobody_knows(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".env").write_text("PRIMRY_URL=http://x\n")
    result = run("doctor", LOG_FILE=str(tmp_path), SESSION_DIR=str(tmp_path / "file"))
    assert result.exit_code == 1
    assert f"problem: LOG_FILE {tmp_path} is a directory\n" in result.output
    assert "problem: SESSION_DIR (or DATA_DIR): " in result.output
    assert "note: .env: PRIMRY_URL is no setting of the router\n" in result.output


@pytest.mark.parametrize("setting", ["LOG_FILE", "DATA_DIR"])
def test_a_log_that_cannot_be_written_stops_the_start_with_one_line(run, tmp_path: Path, setting: str) -> None:
    (tmp_path / "file").touch()
    result = run("serve", **{setting: str(tmp_path / "file" / "x")})
    assert result.exit_code == 2
    assert result.output.startswith("ai-router: LOG_FILE (or DATA_DIR): ")
    assert result.output.count("\n") == 1


def test_a_port_that_is_taken_stops_the_start_with_one_line(run, upstream: FakeUpstream) -> None:
    result = run("serve", PORT=str(upstream.port))
    assert result.exit_code == 2
    assert result.output.startswith(
        f"ai-router: PORT {upstream.port} on 127.0.0.1 cannot be had: Address already in use"
    )


def test_route_tells_who_would_really_answer(run) -> None:
    result = run("route", "what is the weather in Rome?")
    assert result.output.endswith(
        "enrich needs XAI_API_KEY or PERPLEXITY_API_KEY or OPENROUTER_API_KEY or SEARXNG_URL; the primary stands in\n"
    )
    decision = json.loads(run("route", "--json", "what is the weather in Rome?").output)
    (asked,) = decision["would_ask"]
    assert asked == {"backend": "primary", "model": "smollm2-135m-instruct", "local": True, "for": "answer"}
    assert (decision["route"], decision["leaves"], decision["cost_usd"]) == ("enrich", False, 0.0)
    assert decision["note"].endswith("the primary stands in")


def test_doctor_knows_the_embedded_model(run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "embedded, smollm2-135m-instruct from SmolLM2-135M-Instruct.Q4_1.gguf" in result.output


# eval, learn, replay


def example_file(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_eval_dressed_has_a_row_for_each_family_and_says_the_mean(run, tmp_path: Path) -> None:
    examples = example_file(tmp_path, {"text": "hello", "label": "MODERATE"}, {"text": "gold price", "label": "ENRICH"})
    result = run("eval", "--dressed", str(examples))
    assert result.exit_code == 0, result.output
    assert re.search(r"^double_quotes +100.0%", result.output, re.MULTILINE)
    assert re.search(r"^mean accuracy of the 40 families: \d+\.\d%$", result.output, re.MULTILINE)
    document = json.loads(run("eval", "--dressed", "--json", str(examples)).output)
    assert len(document["dressed"]) == 41
    assert document["dressed"]["undressed"]["report"]["prompts"] == 2


def test_eval_measures_the_head_beside_its_baselines(run, tmp_path: Path) -> None:
    rows = [{"text": "hello", "label": "MODERATE"}, {"text": "weather in Oslo tomorrow", "label": "ENRICH"}]
    result = run("eval", str(example_file(tmp_path, *rows)))
    assert result.exit_code == 0, result.output
    assert result.output.startswith("2 prompts: MODERATE 1, COMPLEX 0, ENRICH 1\n")
    assert re.search(r"^head +100.0%", result.output, re.MULTILINE)
    for baseline in ("always primary", "length only", "random"):
        assert re.search(rf"^{baseline} ", result.output, re.MULTILINE)
    assert "coverage at risk: " in result.output


def test_eval_asks_the_classifier_too_and_tells_what_they_come_to_together(
    run, tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, classifies("COMPLEX", probability=0.8, delay=0.2))
    rows = [{"text": "hello", "label": "MODERATE"}, {"text": "flurb gnozzle wex qanto", "label": "COMPLEX"}]
    result = run("eval", "--json", str(example_file(tmp_path, *rows)), ROUTER_URL=upstream.url)
    deciders = json.loads(result.output)["deciders"]
    assert deciders["classifier"]["accuracy"] == 0.5
    assert deciders["cascade"]["accuracy"] == 1.0
    assert deciders["classifier"]["ms"]["p50"] > 200 > deciders["head"]["ms"]["p50"]


def test_eval_counts_a_classifier_that_does_not_answer(run, tmp_path: Path) -> None:
    rows = [{"text": "hello", "label": "MODERATE"}]
    result = run("eval", "--json", str(example_file(tmp_path, *rows)), ROUTER_URL="http://127.0.0.1:9")
    assert json.loads(result.output)["deciders"]["classifier"]["failed"] == 1


def test_eval_of_weak_and_strong_is_about_difficulty(run, tmp_path: Path) -> None:
    rows = [{"text": f"question {n}", "weak": n % 3 > 0, "strong": n % 7 > 0} for n in range(50)]
    result = run("eval", str(example_file(tmp_path, *rows)))
    assert result.output.startswith("difficulty routing, 50 prompts")
    assert "random   0.500" in result.output


def test_eval_lists_errors_on_request(run, tmp_path: Path) -> None:
    result = run("eval", "--errors", str(example_file(tmp_path, {"text": "hello", "label": "COMPLEX"})))
    assert re.search(r"COMPLEX +taken for MODERATE +[01]\.\d\d sure +hello", result.output + result.stderr)


def test_eval_names_the_line_that_is_wrong(run, tmp_path: Path) -> None:
    result = run("eval", str(example_file(tmp_path, {"text": "hello", "label": "EASY"})))
    assert result.exit_code == 2
    assert "set.jsonl:1: label must be one of MODERATE, COMPLEX, ENRICH, not 'EASY'" in result.output


def test_learn_wants_one_source(run) -> None:
    message = "say one of --from FILES, --from-sessions and --classifier"
    assert message in run("learn", "--from-sessions", "--classifier").output


def test_learn_without_a_source_learns_the_routes_of_which_there_may_be_none(run) -> None:
    result = run("learn")
    assert result.exit_code == 2
    assert "there is nothing to learn: the catalogue has no [routes]" in result.output


def test_learn_from_sessions_without_any_says_so(run, tmp_path: Path) -> None:
    (tmp_path / "data" / "sessions").mkdir(parents=True)
    result = run("learn", "--from-sessions")
    assert result.exit_code == 2
    assert "holds too few decisions of the classifier" in result.output


def stored_session(folder: Path, number: int, text: str, label: str, **changes: object) -> None:
    document = {
        "session_id": f"{number:08x}",
        "timestamp": "2026-11-21T20:00:00+00:00",
        "client_messages": [{"role": "user", "content": text}],
        "decision": {"label": label, "decided_by": "classifier"},
        "route": {"MODERATE": "primary", "COMPLEX": "xai", "ENRICH": "enrich"}[label],
        "stream": True,
        "status": "ok",
        "timings": {"classification_ms": 1000.0, "upstream_ms": 50.0, "ttft_ms": 1005.0},
        "cost_usd": None,
        **changes,
    }
    (folder / f"{number:05}.json").write_text(json.dumps(document))


def test_replay_tells_what_the_head_would_have_spared(run, tmp_path: Path) -> None:
    for number in range(3):
        stored_session(tmp_path, number, "hello there", "MODERATE")
    stored_session(tmp_path, 9, "weather in Oslo tomorrow", "MODERATE")
    result = run("replay", str(tmp_path))
    assert result.output.startswith("4 sessions decided again by policy cascade; 75.0% keep their route\n")
    assert "primary -> enrich: 1" in result.output
    assert "classifier asked: 4 times, would be 0" in result.output
    assert "time to the answer (p50): 1005 ms, would be about 55 ms" in result.output


def test_replay_refuses_a_policy_that_it_does_not_know(run, tmp_path: Path) -> None:
    result = run("replay", str(tmp_path), "--policy", "best")
    assert result.exit_code == 2
    assert "no policy 'best'; there are recorded, cascade, head, classifier, primary" in result.output


@pytest.fixture
def fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, apart = own_examples()
    monkeypatch.setattr("ai_router.cli.learning.own_examples", lambda: (examples[::12], apart))


def test_learn_from_sessions_installs_a_head_that_has_learned(run, tmp_path: Path, fewer_examples: None) -> None:
    """A teacher with a quirk: reports of the tulip exchange are COMPLEX to it."""
    sessions = tmp_path / "data" / "sessions"
    sessions.mkdir(parents=True)
    for number in range(250):
        stored_session(sessions, number, f"tulip exchange report number {number}, please", "COMPLEX")
    result = run("learn", "--from-sessions")
    assert result.exit_code == 0, result.output
    assert re.search(r"the present head: agrees in +\d+\.\d% of \d+", result.output)
    assert "installed as data/head.npz" in result.output
    assert run("route", "tulip exchange report number 999, please").output.startswith("COMPLEX -> xai")


def test_learning_says_what_changes_and_people_count_more_than_the_classifier(
    run, tmp_path: Path, fewer_examples: None
) -> None:
    """The classifier calls reports of the tulip exchange MODERATE, and people say that they are COMPLEX."""
    sessions = tmp_path / "data" / "sessions"
    sessions.mkdir(parents=True)
    for number in range(250):
        stored_session(sessions, number, f"please water the garden of cousin {number}", "MODERATE")
    texts = [f"tulip exchange report number {number}, please" for number in range(20)]
    tell(tmp_path / "data", [(text, "should_be", "MODERATE", "COMPLEX") for text in texts])
    result = run("learn", "--from-sessions")
    assert "20 verdicts of people beside them" in result.output
    assert re.search(
        r"verdicts of people: the present head is right about \d+ of 20, the new one about 20", result.output
    )
    assert re.search(r"of \d+ decisions (none changes|\d+ change: \w+ -> \w+ \d+)", result.output), result.output
    assert result.exit_code == 0, result.output


def test_learn_from_what_people_say_alone(run, tmp_path: Path, fewer_examples: None) -> None:
    """Who has no classifier has verdicts only: told ones, and thumbs."""
    (tmp_path / "data" / "sessions").mkdir(parents=True)
    texts = [f"tulip exchange report number {number}, please" for number in range(30)]
    told = [(text, "should_be", "MODERATE", "COMPLEX") for text in texts[:15]]
    tell(tmp_path / "data", [*told, *((text, "bad", "MODERATE", None) for text in texts[15:])])
    result = run("learn", "--from-sessions")
    assert result.exit_code == 0, result.output
    assert "installed as data/head.npz" in result.output
    assert run("route", "tulip exchange report number 999, please").output.startswith("COMPLEX -> xai")


def tell(folder: Path, verdicts: Sequence[tuple[str, str, str, str | None]]) -> None:
    """Keep (text, verdict, decided, label) as POST /v1/feedback does."""
    store = FeedbackStore(f"sqlite:///{folder / 'usage.db'}")
    for number, (text, verdict, decided, label) in enumerate(verdicts):
        messages = [{"role": "user", "content": text}]
        row = {"client": "", "organization": "", "request_id": "r", "session_id": f"f{number}", "messages": messages}
        store.add({**row, "verdict": verdict, "decided": decided, "label": label}, 30)
    store.close()


def test_learn_from_sessions_does_not_install_a_worse_head(run, tmp_path: Path, fewer_examples: None) -> None:
    """What is learned from turns out to be wrong where it is examined."""
    sessions = tmp_path / "data" / "sessions"
    sessions.mkdir(parents=True)
    for number in range(240):
        text = f"write a birthday poem for cousin {number}"
        examined = bool(examples_from_sessions([session(text)]).held_out)
        stored_session(sessions, number, text, "MODERATE" if examined else "COMPLEX")
    result = run("learn", "--from-sessions")
    assert result.exit_code == 1, result.output
    assert "not installed, the present head stays: " in result.output
    assert not (tmp_path / "data" / "head.npz").exists()


def test_models_lists_providers_prices_and_chains(run) -> None:
    result = run("models", XAI_API_KEY="k")
    assert result.exit_code == 0
    assert re.search(r"^complex   xai \(grok-4\.7\) -> primary", result.output, re.MULTILINE)
    assert re.search(r"^  xai/grok-4\.7 +500K +\$2/6  reasoning tools vision \(default\)$", result.output, re.MULTILINE)
    assert "OpenAI: https://api.openai.com (chat), OPENAI_API_KEY is not set" in result.output
    assert "  gpt-3.5-turbo -> gpt-6-luna (retired)" in result.output


def test_models_as_json(run) -> None:
    told = json.loads(run("models", "--json").output)
    assert told["chains"]["complex"] == ["primary/smollm2-135m-instruct"]
    assert told["providers"]["xai"]["models"]["grok-4.7"]["price"]["output"] == 6.0
    assert told["providers"]["xai"]["configured"] is False


CATALOGUE = """
[providers.one]
base_url = "{url}"
key = "ONE_API_KEY"
default_model = "a"
models = {{ a = {{}}, b = {{}}, preset = {{ send_as = "preset" }} }}
"""


def check_models(run, upstream: FakeUpstream, tmp_path: Path, reply: Plain) -> Result:
    upstream.on("/v1/models", reply)
    mine = tmp_path / "mine.toml"
    mine.write_text(CATALOGUE.format(url=upstream.url))
    return run("models", "--check", ONE_API_KEY="s3cret", CATALOGUE_FILE=str(mine))


def test_models_check_names_what_is_not_served_any_more_and_what_is_new(
    run, upstream: FakeUpstream, tmp_path: Path
) -> None:
    served = Plain({"data": [{"id": "models/a-2026-11"}, {"id": "c"}]})
    result = check_models(run, upstream, tmp_path, served)
    assert result.exit_code == 1
    assert "  check: b is not served\n" in result.output
    assert "served but not listed: 2 (a-2026-11, c)" in result.output
    assert upstream.calls("/v1/models")[0].headers["authorization"] == "Bearer s3cret"


def test_models_check_finds_all_well(run, upstream: FakeUpstream, tmp_path: Path) -> None:
    result = check_models(run, upstream, tmp_path, Plain({"data": [{"id": "a"}, {"id": "b"}]}))
    assert result.exit_code == 0, result.output
    assert "  check: all of them are served\n" in result.output


@pytest.mark.parametrize("reply", [Plain({"error": "no"}, status=500), Plain({"data": "x"}), Plain([])])
def test_models_check_says_who_did_not_answer(run, upstream: FakeUpstream, tmp_path: Path, reply: Plain) -> None:
    result = check_models(run, upstream, tmp_path, reply)
    assert result.exit_code == 1
    assert "check: no answer: " in result.output
    assert "s3cret" not in result.output


def test_a_bad_catalogue_is_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[chains]\ncomplex = []")
    result = run("models", CATALOGUE_FILE="mine.toml")
    assert result.exit_code == 2
    assert result.output == "ai-router: CATALOGUE_FILE mine.toml: chains.complex: must name at least one backend\n"
