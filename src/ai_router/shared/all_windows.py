"""The windows of GET /api/metrics over all processes: each counts what it has answered, and asks the others.

What was answered before the oldest of them was started comes from the database, read at each start. A process that has
died takes its counts with it, until all have been started anew, and where several machines are started one after the
other, what was answered in between may count twice for the slot of the first start. The rows of usage are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.observability.windows import Cell, Durations, Key, Windows
from ai_router.shared.client import SharedUnavailable
from ai_router.shared.peers import Peers

_TOPIC = "windows"
_PEERS_S = 0.5


class AllWindows:
    """``own``: what this process has answered since ``started``, in seconds since 1970; ``earlier``: what was before.

    Safe from any thread.
    """

    def __init__(self, own: Windows, earlier: Windows, started: float, peers: Peers) -> None:
        self._own = own
        self._earlier = earlier
        self._started = started
        self._peers = peers
        peers.on(_TOPIC, self._tell)

    def within(self, seconds: float) -> dict[Key, Cell]:
        """The requests of the last ``seconds``, by route and model. The oldest slot counts as a whole."""
        try:
            answers = self._peers.ask(_TOPIC, seconds, _PEERS_S)
        except SharedUnavailable:
            answers = ()
        merged = self._own.within(seconds)
        oldest = min([self._started, *(answer["started"] for answer in answers)])
        _merge(self._earlier.within(seconds, before=oldest), merged)
        for answer in answers:
            cells = {(route, model): _cell(value) for route, model, value in answer["cells"]}
            _merge(cells, merged)
        return merged

    def _tell(self, seconds: float) -> Any:
        cells = [[*key, _cell_value(cell)] for key, cell in self._own.within(seconds).items()]
        return {"started": self._started, "cells": cells}


def _merge(cells: Mapping[Key, Cell], into: dict[Key, Cell]) -> None:
    for key, cell in cells.items():
        into.setdefault(key, Cell()).merge(cell)


_DURATIONS = ("ttft", "total", "cancel")


def _cell_value(cell: Cell) -> Mapping[str, Any]:
    return {"counts": cell.counts, **{name: list(getattr(cell, name).buckets.items()) for name in _DURATIONS}}


def _cell(value: Mapping[str, Any]) -> Cell:
    return Cell(value["counts"], *(Durations(dict(value[name])) for name in _DURATIONS))
