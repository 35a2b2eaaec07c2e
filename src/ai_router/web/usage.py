"""GET /api/usage: what was used, what it cost, what that spared, and what left the local network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify

from ai_router.errors import InvalidRequest, StoreUnavailable
from ai_router.providers.pricing import Baseline
from ai_router.storage.usage_writer import UsageWriter
from ai_router.web import query
from ai_router.web.access import whose
from ai_router.web.lookups import Lookups

if TYPE_CHECKING:
    from ai_router.storage.usage import UsageStore

_MOST_DAYS = 3_660
GROUPINGS = ("day", "route", "model", "organization", "client", "backend", "status")
"""What ``by`` takes; ``org`` and ``key`` are other words for two of them."""
_OTHER_WORDS = {"org": "organization", "key": "client"}


def blueprint(
    usage: UsageWriter[UsageStore] | None, baseline: Baseline | None, flush: Callable[[], None], lookups: Lookups
) -> Blueprint:
    """The route. A client sees its own usage, the admin all."""
    blueprint = Blueprint("usage", __name__)

    @blueprint.get("/api/usage")
    def report() -> Response:
        client = whose()
        query.known(("from", "to", "by"))
        today = datetime.now(UTC).date()
        until = query.day("to", today)
        since = query.day("from", until - timedelta(days=29))
        if not 0 <= (until - since).days < _MOST_DAYS:
            raise InvalidRequest(f"'from' must be before 'to', by {_MOST_DAYS} days at most", "from")
        asked = query.several_of("by", (*GROUPINGS, *_OTHER_WORDS), "day")
        by = list(dict.fromkeys(_OTHER_WORDS.get(word, word) for word in asked))
        if usage is None:
            raise StoreUnavailable("TELEMETRY=off", "TELEMETRY=off: no usage is kept")
        flush()
        usage.flush()
        which, store = (since.isoformat(), until.isoformat(), client), usage.store

        def ask() -> Mapping[str, Any]:
            return {
                "total": store.totals(*which, by=())[0],
                "groups": store.totals(*which, by=by),
                "left_local_network": store.left_the_house(*which),
            }

        return jsonify(
            object="usage",
            **{"from": which[0], "to": which[1]},
            by=by,
            **lookups.of_database(ask),
            baseline=_told(baseline),
            rows_waiting=usage.waiting,
        )

    return blueprint


def _told(baseline: Baseline | None) -> Mapping[str, Any] | None:
    """What saved_usd compares with: the answers' tokens at this model's price."""
    if baseline is None:
        return None
    price = baseline.price
    per_million = None if price is None else {"input": price.input, "cached": price.cached, "output": price.output}
    return {"model": baseline.model, "usd_per_million_tokens": per_million}
