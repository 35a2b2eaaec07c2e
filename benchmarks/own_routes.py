"""How well an owner's routes are learned from five examples each: python -m benchmarks.own_routes.

The prompts are in datasets/own_routes. Those of the first part were written for three of the routes, those of the
second for two; a prompt is only compared with the routes of its part, since nobody has said whether it belongs to the
others. A near miss was written to be taken for a route, and is of none.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson

from ai_router.learning.own_routes import learn_routes, ordinary_prompts
from ai_router.providers.own_routes import OwnRoute, label_of
from ai_router.routing.head.model import Head
from ai_router.routing.head.own_routes import OwnMatch, RouteModels
from ai_router.routing.head.store import packaged_head, packaged_slow_models

FOLDER = Path(__file__).parents[1] / "datasets/own_routes"
PARTS = (("code", "translate", "legal"), ("health", "cooking"))


@dataclass(frozen=True, slots=True)
class RouteResult:
    """Shares in [0, 1]. ``recall``: of its prompts, those that it gets. It also gets of ``ordinary`` prompts, of those
    of the ``other`` routes, and of its ``near`` misses. ``asked``: of its own prompts, those about which a classifier
    would be asked, if there is one."""

    route: str
    recall: float
    ordinary: float
    other: float
    near: float
    asked: float


def measured() -> tuple[list[RouteResult], float]:
    """The results of all routes, and the seconds that the slower part took to learn."""
    routes = msgspec.convert(
        tomllib.loads((FOLDER / "routes.toml").read_text("utf-8"))["routes"], Mapping[str, OwnRoute]
    )
    rows = [orjson.loads(line) for line in (FOLDER / "held_out.jsonl").read_bytes().splitlines()]
    ordinary = ordinary_prompts()
    head, vectors = packaged_head(), packaged_slow_models().vectors
    vectors.of(["loaded"])
    results, slowest = [], 0.0
    for number, names in enumerate(PARTS, 1):
        started = time.monotonic()
        models = learn_routes({name: routes[name] for name in names}, {}, ordinary, head, vectors).models
        slowest = max(slowest, time.monotonic() - started)
        ours = [row for row in rows if row["part"] == number]
        matches = [_match(head, models, row["text"]) for row in ours]
        results += [_result(name, ours, matches) for name in names]
    return results, slowest


def _match(head: Head, models: RouteModels, text: str) -> OwnMatch | None:
    return head.guess([{"role": "user", "content": text}], 2026, own_routes=models).own_match


def _result(name: str, rows: Sequence[Mapping[str, str]], matches: Sequence[OwnMatch | None]) -> RouteResult:
    def share(wanted: Sequence[bool]) -> float:
        taken = [_gets(match, name) for match, one in zip(matches, wanted, strict=True) if one]
        return sum(taken) / len(taken)

    its = [row["route"] == name for row in rows]
    unsure = [match is not None and not match.sure for match, one in zip(matches, its, strict=True) if one]
    return RouteResult(
        name,
        recall=share(its),
        ordinary=share([row["route"] == "none" and row["near"] != name for row in rows]),
        other=share([row["route"] not in ("none", name) for row in rows]),
        near=share([row["near"] == name for row in rows]),
        asked=sum(unsure) / len(unsure),
    )


def _gets(match: OwnMatch | None, name: str) -> bool:
    return match is not None and match.matches and match.label == label_of(name)


def table(results: Sequence[RouteResult]) -> Iterator[str]:
    """The results in Markdown."""
    yield "| route | recall | ordinary prompts | other routes' | near misses | asked about |"
    yield "|---|---|---|---|---|---|"
    for one in results:
        shares = (one.recall, one.ordinary, one.other, one.near, one.asked)
        yield f"| {one.route} | {' | '.join(f'{share:.1%}' for share in shares)} |"


if __name__ == "__main__":
    found, took = measured()
    print("\n".join(table(found)))
    print(f"learned in {took:.1f} s")
