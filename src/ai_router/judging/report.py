"""What all judgements say, as one document: for ``ai-router judge --json`` and GET /api/judgements. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ai_router.judging.comparing import Judgement, Winner, WinRate, win_rates

_MODELS = ("local", "cloud", "judge")

Row = Mapping[str, Any]
"""A judgement, by the columns of its table."""


def rates_of(rows: Sequence[Row]) -> tuple[Mapping[str, WinRate], int]:
    """The rates of the routes, and how many judgements are not counted in them.

    Counted are those that are about the same models, by the same judge, as the newest of their route. ``rows``: oldest
    first.
    """
    newest = {row["route"]: [row[name] for name in _MODELS] for row in rows}
    present = [row for row in rows if [row[name] for name in _MODELS] == newest[row["route"]]]
    judgements = (Judgement(row["route"], Winner(row["winner"]), row["contradicted"]) for row in present)
    return win_rates(judgements), len(rows) - len(present)


def judgements_document(rows: Sequence[Row], spent_usd: float, budget_usd: float) -> dict[str, Any]:
    """``spent_usd``: in this month. ``budget_usd``: for a month; 0: nothing is judged."""
    rates, earlier = rates_of(rows)
    newest = {row["route"]: {name: row[name] for name in _MODELS} for row in rows}
    routes = {
        route: {**newest[route], **dataclasses.asdict(found), "rate": found.rate, "interval": found.interval}
        for route, found in rates.items()
    }
    return {
        "object": "judgements",
        "spent_usd": spent_usd,
        "budget_usd": budget_usd,
        "routes": routes,
        "earlier": earlier,
    }
