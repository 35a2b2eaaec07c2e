"""The documents against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ai_router.cli.main import main
from ai_router.config_docs import documented_settings
from ai_router.providers.catalogue import load_catalogue
from ai_router.web import responses

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "datasets/README.md"]
README, SETTINGS, LOG, FAULTS, METRICS, RUNNING = (
    (ROOT / page).read_text()
    for page in ("README.md", *(f"docs/{name}.md" for name in ("settings", "log", "faults", "metrics", "running")))
)


_GEN_AI_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type")


def between(text: str, name: str) -> str:
    return text.partition(f"<!-- {name}: ")[2].partition(f"<!-- /{name} -->")[0]


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", between(SETTINGS, "settings"), re.MULTILINE)
    assert rows == [
        (setting.env, "-" if setting.default is None else f"`{setting.default}`", setting.doc)
        for setting in documented_settings()
    ]


def test_the_log_lines_that_are_documented_are_those_in_the_code() -> None:
    code = (ROOT / "src/ai_router/observability/log_lines.py").read_text()
    for line in between(LOG, "log lines").splitlines()[1:]:
        if line and not line.startswith("```"):
            begin = re.split(r"[:={]| session", line)[0]
            assert begin in code, line


def test_every_command_is_documented() -> None:
    for command in main.commands:
        assert f"ai-router {command}" in RUNNING


def test_every_make_target_that_is_documented_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_a_heading_lead_to_one(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]*)#([^)]*)\)", page.read_text()):
        if "://" not in target:
            assert heading in headings(page.parent / target if target else page), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """The names by which a page's headings are linked to, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_has_at_most_100_columns(page: Path) -> None:
    prose, fenced = [], False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not (fenced or line.startswith("|") or "://" in line):
            prose.append((number, line))
    assert not [number for number, line in prose if len(line) > 100]


def test_every_page_is_listed_with_its_reader() -> None:
    listed = set(re.findall(r"\]\(([\w.]+[.]md)\)", (ROOT / "docs/README.md").read_text()))
    assert listed == {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}


def test_each_threat_has_a_test_that_there_is() -> None:
    page = (ROOT / "docs/security.md").read_text()
    table = page.partition("<!-- threats: ")[2].partition("<!-- /threats -->")[0]
    _, _, *rows = [line.strip("| \n").split(" | ") for line in table.splitlines() if line.startswith("|")]
    threats = [row for row in rows if not row[0].startswith("**")]
    assert len(threats) > 40
    for threat, *_, tests in threats:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named, threat
        for path, test in named:
            assert f"def {test}(" in (ROOT / "tests" / path).read_text(), f"{threat}: {path}::{test}"


def test_every_route_is_explained() -> None:
    for route in ("primary", "xai", "enrich", "meta"):
        assert f"| `{route}` |" in README


def test_the_parts_of_server_timing_are_those_in_the_code() -> None:
    (row,) = re.findall(r"^\| `server-timing` \| (.*): milliseconds", README, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == {*responses._PARTS, *responses._TIMINGS.values(), "classify"}


def test_the_response_headers_are_those_in_the_code() -> None:
    code = (ROOT / "src/ai_router/web/responses.py").read_text()
    section = README.partition("## Response headers")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    assert named == set(re.findall(r'"(x-(?:router|request|session)-[a-z-]+|server-timing)"', code))


def test_every_error_code_is_documented() -> None:
    api = (ROOT / "docs/api.md").read_text()
    codes = set(re.findall(r'code(?:: str \| None)? = "(\w+)"', (ROOT / "src/ai_router/errors.py").read_text()))
    assert {code for code in codes if f"`{code}`" not in api} <= {"aborted", "upstream_error"}, "those are never shown"


def test_the_table_of_faults_is_complete() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \| .+ \|$", between(FAULTS, "faults"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 23)]


def test_every_error_code_in_the_table_of_faults_exists() -> None:
    code = (ROOT / "src/ai_router/errors.py").read_text()
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", between(FAULTS, "faults")):
        assert f'"{name}"' in code, name


def test_every_metric_is_documented() -> None:
    modules = [*ROOT.glob("src/ai_router/observability/*.py"), *ROOT.glob("src/ai_router/*.py")]
    names = {name for module in modules for name in re.findall(r'"((?:ai_router|gen_ai)_\w+)"', module.read_text())}
    assert len(names) > 40, "the modules that make metrics are found"
    for name in names - set(_GEN_AI_LABELS):
        assert f"`{name}" in between(METRICS, "metrics"), name


def test_the_example_of_a_catalogue_works(tmp_path: Path) -> None:
    example = SETTINGS.partition("```toml\n")[2].partition("```")[0]
    mine = tmp_path / "mine.toml"
    mine.write_text(example)
    catalogue = load_catalogue(mine)
    assert catalogue.chains["complex"][1] == "groq"
