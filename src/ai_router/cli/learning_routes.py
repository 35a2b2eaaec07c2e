"""``learn`` without options: learning the owner's routes."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ai_router.cli.common import exit_with, registry_of, settings_or_exit
from ai_router.cli.feedback_examples import feedback_examples
from ai_router.learning.installing import install
from ai_router.learning.own_routes import LearnedRoute, learn_routes, ordinary_prompts
from ai_router.routing.head.own_routes import ROUTES_FILE, pack_routes
from ai_router.routing.head.store import HeadStore, packaged_slow_models
from ai_router.routing.prompt import last_user_text
from ai_router.types import LabelName

TAKES_MUCH = 0.05
"""From this share of ordinary prompts on it is said that a route takes many."""


def learn_own_routes(out: Path | None) -> None:
    """Learn all routes of the catalogue, and put them in place, or into the file ``out``."""
    settings = settings_or_exit()
    routes = registry_of(settings).catalogue.routes
    if not routes:
        exit_with(
            "there is nothing to learn: the catalogue has no [routes] "
            "(say --from FILES or --from-sessions to make a head)"
        )
    started = time.monotonic()
    head = HeadStore(settings.data_dir, with_difficulty=False).current
    told: dict[LabelName, list[str]] = {}
    for example in feedback_examples(settings.usage_database):
        told.setdefault(example.label, []).append(last_user_text(example.messages))
    learned = learn_routes(routes, told, ordinary_prompts(), head, packaged_slow_models().vectors)
    for route in learned.routes:
        click.echo(_report(route))
    path = settings.data_dir / ROUTES_FILE if out is None else out
    install(pack_routes(learned.models), path)
    click.echo(f"{len(learned.routes)} learned in {time.monotonic() - started:.0f} s, and in {path}")


def _report(route: LearnedRoute) -> str:
    name = route.label.lower()
    parts = [f"{name}: knows {route.recognised} of its {route.examples} examples"]
    parts.append(f"takes {route.takes:.1%} of ordinary prompts{', which is much' if route.takes >= TAKES_MUCH else ''}")
    if route.confused_with:
        others = ", ".join(label.lower() for label in route.confused_with)
        parts.append(f"some of its examples look like {others}")
    return "; ".join(parts)
