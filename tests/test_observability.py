"""The dashboard and the alerts against the metrics of a real router: a query that finds nothing is found here."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ai_router.observability.windows import targets
from tests.fakes.personas import CHAT, classifies
from tests.fakes.router import running_router
from tests.fakes.traffic import SETTINGS, Traffic
from tests.fakes.upstream import fake_upstream

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
SOURCES = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/ai-router.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OBSERVERS = {name: COMPOSE["services"][name] for name in ("prometheus", "grafana")}

KEY = "key-of-prometheus"
OF_PROMETHEUS = {"job", "instance"}
"""The labels that a scrape puts on each sample."""
OF_SCRAPES = {"up": OF_PROMETHEUS}
NEVER_COUNTED = {"ai_router_queue_full_total"}
"""Declared, but without a sample after the traffic of the tests."""

Labels = Mapping[str, set[str]]
"""The labels of each metric that can be asked for, by its name."""


def queries() -> Iterator[tuple[str, str]]:
    """Each query with the place where it stands."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert asked, "the tests know no other way to ask for the values of a variable"
        yield f"variable {variable['name']}", f"count by ({asked[2]}) ({asked[1]})"


def parsed(query: str) -> promql.Expr:
    """As Prometheus is asked once Grafana has put in the values of its variables."""
    for variable in DASHBOARD["templating"]["list"]:
        query = query.replace(f"${variable['name']}", "value")
    return promql.parse(query.replace("$__rate_interval", "1m").replace("$__range", "1h"))


def asked_for(query: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that a query names, each with the labels that it must have: those it is matched and grouped by."""

    def visit(node: Any, around: frozenset[str]) -> Iterator[tuple[str, set[str]]]:
        if isinstance(node, promql.VectorSelector):
            yield node.name or "", {matcher.name for matcher in node.matchers.matchers} | around
        elif isinstance(node, promql.MatrixSelector):
            yield from visit(node.vector_selector, around)
        elif isinstance(node, promql.AggregateExpr):
            # What is grouped by further out is asked of what is left further in.
            yield from visit(node.expr, around | frozenset(node.modifier.labels if node.modifier else ()))
        elif isinstance(node, promql.BinaryExpr):
            matching = node.modifier.matching.labels if node.modifier and node.modifier.matching else ()
            for side in (node.lhs, node.rhs):
                yield from visit(side, around | frozenset(matching))
        elif isinstance(node, promql.Call):
            for argument in node.args:
                yield from visit(argument, around)
        elif isinstance(node, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
            yield from visit(node.expr, around)

    yield from visit(parsed(query), frozenset())


def numbers(query: str) -> set[float]:
    """All numbers in a query."""
    found: set[float] = set()
    promql.walk(parsed(query), lambda node: found.add(node.val) if isinstance(node, promql.NumberLiteral) else None)
    return found


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """What a router says of itself that has had traffic of all kinds."""
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        classifier.on(CHAT, classifies("MODERATE"))
        addresses = {"ROUTER_URL": classifier.url, "PRIMARY_URL": primary.url, "XAI_API_URL": xai.url}
        keys = {"XAI_API_KEY": "xai-test-key-0123456789", "AI_ROUTER_API_KEYS": f"another,{KEY}"}
        with running_router(tmp_path_factory.mktemp("observed"), **SETTINGS, **addresses, **keys) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            traffic = Traffic(router, classifier, primary, xai, KEY)
            traffic.all_kinds()
            text = traffic.exposition().decode()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    declared = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    return {name: set() for name in declared & NEVER_COUNTED} | labels


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda value: value[:40])
def test_a_query_asks_for_metrics_and_labels_that_a_router_has(exposed: Labels, where: str, query: str) -> None:
    known = {**exposed, **OF_SCRAPES}
    for name, labels in asked_for(query):
        assert name in known, f"{where}: there is no {name}"
        if name not in NEVER_COUNTED:
            assert labels <= known[name] | OF_PROMETHEUS, f"{where}: {name} has {sorted(known[name])}"


def test_a_metric_or_label_that_does_not_exist_would_be_found() -> None:
    query = 'sum by (le) (rate(a_bucket{code="x", route=~"$route"}[$__rate_interval])) / on (job) group_left () b'
    assert list(asked_for(query)) == [("a_bucket", {"le", "code", "route", "job"}), ("b", {"job"})]


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for panel in PANELS:
        for target in panel.get("targets", []):
            kept = set[str]().union(OF_PROMETHEUS, *(labels for _, labels in asked_for(target["expr"])))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_every_metric_of_the_router_s_own_is_shown_or_watched(exposed: Labels) -> None:
    def families(names: Iterable[str]) -> set[str]:
        return {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in names if "process_" not in name}

    assert families(exposed) <= families(name for _, query in queries() for name, _ in asked_for(query))


@pytest.mark.parametrize("target", targets(None), ids=lambda target: target.name)
def test_every_target_has_an_alert_at_its_limit(target: Any) -> None:
    (rule,) = [rule for rule in RULES if rule["labels"].get("target") == target.name]
    assert target.limit / (1000 if target.unit == "ms" else 1) in numbers(rule["expr"])


def test_no_alert_is_of_a_target_that_is_not_promised() -> None:
    assert {rule["labels"].get("target") for rule in RULES} - {None} == {target.name for target in targets(None)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_look_at(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 80


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_panels_have_ids_of_their_own() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)


def test_panels_lie_side_by_side_on_the_grid() -> None:
    for panel in PANELS:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    for one, other in itertools.combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one['title']} and {other['title']}"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_has_something_to_ask(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    assert panel["datasource"]["uid"] in {source["uid"] for source in SOURCES}
    assert panel["type"] == "row" or panel["targets"]


def test_everything_on_the_dashboard_asks_the_provisioned_source() -> None:
    asked = set(re.findall(r'"datasource": {"type": "prometheus", "uid": "([^"]*)"}', json.dumps(DASHBOARD)))
    assert asked == {source["uid"] for source in SOURCES}


def test_the_dashboard_loads_without_questions() -> None:
    assert "__inputs" not in DASHBOARD
    assert DASHBOARD["uid"] == "ai-router"
    assert "id" not in DASHBOARD, "that is Grafana's to give"
    assert "${DS_" not in json.dumps(DASHBOARD)


def test_prometheus_reads_the_alerts_and_shows_the_router_a_key() -> None:
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    (scraped,) = PROMETHEUS["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["router:8080"]}]
    key_file = scraped["authorization"]["credentials_file"]
    assert f"> {key_file}\n" in OBSERVERS["prometheus"]["command"][0]
    assert OBSERVERS["prometheus"]["tmpfs"][0].startswith(f"{Path(key_file).parent}:")
    matched = {value for rule in RULES for value in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert matched == {scraped["job_name"]}


def test_both_routers_answer_to_the_name_that_prometheus_knows() -> None:
    assert COMPOSE["services"]["router-embedded"]["networks"]["default"]["aliases"] == ["router"]


@pytest.mark.parametrize("service", OBSERVERS)
def test_what_is_mounted_is_in_the_checkout_or_a_volume(service: str) -> None:
    for mount in OBSERVERS[service]["volumes"]:
        source, target, *options = mount.split(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert options == ["ro"]
        else:
            assert source in COMPOSE["volumes"]
            assert target in ("/prometheus", "/var/lib/grafana")


def test_grafana_finds_the_dashboard_where_it_is_mounted() -> None:
    provided = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/ai-router.yml").read_text())
    (folder,) = [provider["options"]["path"] for provider in provided["providers"]]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in OBSERVERS["grafana"]["volumes"]
    home = OBSERVERS["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/ai-router.json"


@pytest.mark.parametrize("service", OBSERVERS)
def test_an_observer_is_asked_for_pinned_locked_up_and_for_this_machine_only(service: str) -> None:
    observer = OBSERVERS[service]
    assert observer["profiles"] == ["observability"]
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", observer["image"])
    assert observer["read_only"] is True
    assert observer["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in observer["ports"])


def in_a_shell(service: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A service's own command, in a folder of the test's and with ``true`` for the program that it ends in."""
    (script,) = OBSERVERS[service]["command"]
    script = script.replace("$$", "$").replace("/run/ai-router", str(folder))
    script = re.sub(r"exec /(bin/prometheus|run\.sh)", "exec true", script)
    return subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("keys", ["one", "one,two", " one , two", ", one"])
def test_prometheus_is_given_the_first_key(tmp_path: Path, keys: str) -> None:
    assert in_a_shell("prometheus", tmp_path, PATH="/usr/bin:/bin", AI_ROUTER_API_KEYS=keys).returncode == 0
    # Prometheus cuts off the white space around it.
    assert (tmp_path / "key").read_text().strip() == "one"
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0


def test_grafana_does_not_start_with_a_password_that_everybody_knows(tmp_path: Path) -> None:
    refused = in_a_shell("grafana", tmp_path, GF_SECURITY_ADMIN_PASSWORD="")
    assert refused.returncode != 0
    assert "set GRAFANA_ADMIN_PASSWORD" in refused.stderr
    assert in_a_shell("grafana", tmp_path, GF_SECURITY_ADMIN_PASSWORD="chosen").returncode == 0
    assert OBSERVERS["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_ADMIN_PASSWORD:-}"
