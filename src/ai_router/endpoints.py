"""Registering the endpoints of the application, in groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Flask

from ai_router.apis import ClientApi
from ai_router.client_apis.responses import API as RESPONSES
from ai_router.config import Settings
from ai_router.console.assets import Assets
from ai_router.console.doubt import Deciders, Doubts
from ai_router.console.live import LivePart, LiveView
from ai_router.dispatch.client_form import ThoughtOrigins
from ai_router.dispatch.embeddings import Embeddings
from ai_router.dispatch.everywhere import InFlightEverywhere
from ai_router.dispatch.record import Subscriber
from ai_router.http.calls import Timeouts
from ai_router.http.client import UpstreamClient
from ai_router.pipeline import Pipeline
from ai_router.providers.registry import CLASSIFIER, Registry
from ai_router.runtime import runtime_of
from ai_router.storage.lazy_store import lazy_feedback, lazy_judgements
from ai_router.storage.response_keeper import ResponseKeeper
from ai_router.storage.session_reader import SessionFiles
from ai_router.telemetry import Telemetry
from ai_router.web import (
    chat,
    console,
    cors,
    count_tokens,
    dry_run,
    embeddings,
    feedback,
    judgements,
    live,
    models,
    ollama,
    openapi,
    passing,
    reports,
    stored_responses,
)
from ai_router.web.browsers import BrowserRule


def _with_earlier_turns(
    keeper: ResponseKeeper, api: ClientApi, payload: dict[str, Any], client: str
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The body of a request with the turns before it, which the Responses API refers to by an id."""
    return keeper.continued(payload, client) if api is RESPONSES else (payload, {})


def register_answers(
    app: Flask,
    pipeline: Pipeline,
    client: UpstreamClient,
    subscribers: Sequence[Subscriber],
    telemetry: Telemetry,
    chat_settings: chat.ChatSettings,
    keeper: ResponseKeeper,
    thoughts: ThoughtOrigins,
    everywhere: InFlightEverywhere,
    made_embeddings: Embeddings,
    timeouts: Timeouts,
) -> None:
    """What answers, in every API, and what clients ask before and after it."""
    in_flight, prepare = runtime_of(app).in_flight, partial(_with_earlier_turns, keeper)
    app.register_blueprint(
        chat.blueprint(
            pipeline,
            in_flight,
            subscribers,
            telemetry.resilience,
            chat_settings,
            prepare,
            everywhere,
            other_api_subscribers=(thoughts.note, keeper.note),
        )
    )
    app.register_blueprint(
        passing.blueprint(client, pipeline.registry, in_flight, subscribers, chat_settings, timeouts)
    )
    app.register_blueprint(stored_responses.blueprint(keeper))
    app.register_blueprint(dry_run.blueprint(pipeline, chat_settings, prepare))
    app.register_blueprint(count_tokens.blueprint(client, pipeline.registry, chat_settings))
    app.register_blueprint(embeddings.blueprint(made_embeddings, chat_settings))
    app.register_blueprint(models.blueprint(pipeline.registry, pipeline.primary_facts))
    app.register_blueprint(ollama.blueprint(pipeline.registry, pipeline.primary_facts, chat_settings))


def browser_rule(app: Flask, settings: Settings) -> BrowserRule | None:
    """What browsers must keep to; None with keys, which a page of somebody else's does not have."""
    origins = settings.cors_origins or ()
    if origins:
        cors.init_app(app, origins)
    names = [settings.host, *(settings.allowed_hosts or ())]
    return None if settings.keys_required else BrowserRule(names, origins)


def register_reports(
    app: Flask,
    settings: Settings,
    chat_settings: chat.ChatSettings,
    telemetry: Telemetry,
    flush: Callable[[], None],
    files: SessionFiles,
    registry: Registry,
) -> None:
    """What was kept of requests, and what people say of it. ``flush`` has recorded what has ended."""
    lookups = reports.Lookups()
    app.register_blueprint(reports.usage_blueprint(telemetry.usage, telemetry.baseline, flush, lookups))
    app.register_blueprint(reports.sessions_blueprint(files, telemetry.sessions, flush, lookups))
    compared = lazy_judgements(settings.usage_database)
    runtime_of(app).closing.callback(compared.close)
    app.register_blueprint(judgements.blueprint(compared, settings.judge_budget_usd, lookups))
    verdicts = lazy_feedback(settings.usage_database)
    runtime_of(app).closing.callback(verdicts.close)
    app.register_blueprint(
        feedback.blueprint(
            verdicts, files, telemetry.sessions, flush, lookups, chat_settings, settings.usage_days, registry
        )
    )


def register_console(
    app: Flask,
    parts: Sequence[LivePart],
    pipeline: Pipeline,
    telemetry: Telemetry,
    flush: Callable[[], None],
    files: SessionFiles,
) -> None:
    """The page at ``/``, what it asks for that nobody else does, and the description of the API."""
    closing = runtime_of(app).closing
    view = LiveView(parts)
    closing.callback(view.close)
    runtime_of(app).live.append(view)
    classifier = pipeline.registry.classifier

    def is_local(backend: str) -> bool:
        # Where there is none any more, that of earlier sessions is taken to have been one's own.
        is_former = backend == CLASSIFIER and classifier is None
        return is_former or telemetry.is_local(backend)

    doubts = Doubts(files, Deciders(lambda: pipeline.router.head, classifier is not None, is_local))
    closing.callback(doubts.close)
    app.register_blueprint(live.blueprint(view, doubts, telemetry.sessions, flush, reports.Lookups()))
    app.register_blueprint(console.blueprint(Assets()))
    app.register_blueprint(openapi.blueprint())
