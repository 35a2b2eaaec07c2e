"""POST /v1/route: where a chat request would go, without sending it there."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response, jsonify, request

from ai_router.dispatch.dry_run import dry_run_document
from ai_router.dispatch.plan import is_demanding
from ai_router.errors import ClientGone
from ai_router.http.calls import CancelScope
from ai_router.pipeline import Pipeline
from ai_router.token_estimates import estimated_tokens
from ai_router.types import Purpose
from ai_router.web.access import ON_DISCONNECT
from ai_router.web.chat import ChatSettings, Prepare, read_any_request
from ai_router.web.responses import on_response_closed

PATH = "/v1/route"


def blueprint(pipeline: Pipeline, settings: ChatSettings, prepare: Prepare) -> Blueprint:
    """The route. It takes the body of a request of any API that is decided, and its headers."""
    dry_run = Blueprint("dry_run", __name__)

    @dry_run.post(PATH)
    def route() -> Response:
        """The decision. Raises RouterError."""
        chat_request, closing = read_any_request(settings, prepare), on_response_closed()
        scope = CancelScope(local_only=bool(chat_request.local_only))
        closing.callback(scope.close)
        settings.admit(estimated_tokens(chat_request.total_chars))
        if (on_disconnect := request.environ.get(ON_DISCONNECT)) is not None:
            closing.callback(on_disconnect(lambda: scope.abort(ClientGone())))
        run = pipeline.router.dry_run(chat_request, partial(scope.new_call, Purpose.CLASSIFICATION))
        plan = pipeline.plan(run.decision, chat_request, demanding=is_demanding(chat_request))
        return jsonify(dry_run_document(run, plan, chat_request, pipeline.registry.searchers, settings.scrub))

    return dry_run
