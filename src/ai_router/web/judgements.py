"""GET /api/judgements: how local answers did beside those of the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify

from ai_router.errors import Forbidden
from ai_router.judging.report import judgements_document
from ai_router.storage.lazy_store import LazyStore
from ai_router.web.access import whose
from ai_router.web.reports import Lookups, refuse_others

if TYPE_CHECKING:
    from ai_router.storage.judgements import JudgementStore


def blueprint(judgements: LazyStore[JudgementStore], budget_usd: float, lookups: Lookups) -> Blueprint:
    """The route, for whoever sees everything: a judgement is nobody's own. ``budget_usd``: for a month."""
    routes = Blueprint("judgements", __name__)

    @routes.get("/api/judgements")
    def report() -> Response:
        if whose() is not None:
            raise Forbidden("judgements are shown to whoever shows AI_ROUTER_ADMIN_KEY")
        refuse_others(())

        def read() -> Mapping[str, Any]:
            store = judgements.store()
            return judgements_document(store.all(), store.spent(), budget_usd)

        return jsonify(lookups.query(read))

    return routes
