"""Learning routes from five examples each, measured on prompts that nobody has learned from."""

from __future__ import annotations

import pytest

from ai_router.learning.own_routes import learn_routes, ordinary_prompts
from ai_router.providers.own_routes import OwnRoute
from ai_router.routing.head.store import packaged_head, packaged_slow_models
from benchmarks.own_routes import RouteResult, measured, table

CODE = OwnRoute(
    description="program code",
    examples=("Write a Python function", "Fix this C bug", "Explain a regex", "Refactor a class", "A SQL query please"),
    backend="primary",
)


@pytest.fixture(scope="module")
def results() -> dict[str, RouteResult]:
    return {result.route: result for result in measured()[0]}


@pytest.mark.parametrize("route", ["code", "translate", "legal", "health", "cooking"])
def test_five_examples_are_enough_for_most_prompts_of_a_route(results: dict[str, RouteResult], route: str) -> None:
    """What is reached, rounded down (docs/benchmarks.md)."""
    found = results[route]
    assert found.recall >= 0.8
    assert found.ordinary <= (0.03 if route == "translate" else 0.02)
    assert found.other <= 0.02


def test_the_table_has_a_line_for_each_route(results: dict[str, RouteResult]) -> None:
    lines = list(table(list(results.values())))
    assert len(lines) == 2 + 5
    assert lines[2].startswith("| code | 8")


def test_the_same_examples_give_the_same_models_and_a_report() -> None:
    ordinary = ordinary_prompts()[:400]
    vectors = packaged_slow_models().vectors
    first, second = (learn_routes({"code": CODE}, {}, ordinary, packaged_head(), vectors) for _ in range(2))
    assert (first.models.weights == second.models.weights).all()
    (report,) = first.routes
    assert (report.label, report.examples, report.recognised, report.confused_with) == ("CODE", 5, 5, ())
    assert 0 < report.takes < 0.3


def test_what_people_say_are_further_examples() -> None:
    ordinary = ordinary_prompts()[:400]
    vectors = packaged_slow_models().vectors
    text = "How tall is the average giraffe?"
    plain, told = (
        learn_routes({"code": CODE}, {"CODE": more}, ordinary, packaged_head(), vectors) for more in ([], [text] * 3)
    )
    giraffe = vectors.of([text])
    assert plain.models.nearest(giraffe) is None
    nearest = told.models.nearest(giraffe)
    assert nearest is not None
    assert nearest.matches
    assert told.routes[0].examples == 8


def test_what_is_expressly_not_meant_is_further_away() -> None:
    ordinary = ordinary_prompts()[:400]
    vectors = packaged_slow_models().vectors
    text = "What is a code of conduct?"
    unlike = OwnRoute(description=CODE.description, examples=CODE.examples, unlike=(text,), backend="primary")
    scores = [
        float(
            learn_routes({"code": route}, {}, ordinary, packaged_head(), vectors).models.scores(vectors.of([text]))[0]
        )
        for route in (CODE, unlike)
    ]
    assert scores[1] < scores[0]


def test_without_routes_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no routes"):
        learn_routes({}, {}, ["a"], packaged_head(), packaged_slow_models().vectors)
