"""The command ``ai-router``."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click
import orjson

from ai_router import __version__
from ai_router.api.parsing import Arrival, Ids, parse_chat_request
from ai_router.app import build_classifier
from ai_router.embedded.start import MODEL_NAME, EmbeddedUnavailable, find_weights, start_embedded
from ai_router.exchange import ChatRequest, Decision
from ai_router.execution.health import HEALTHY, UNHEALTHY, HealthChecker
from ai_router.providers.registry import AUTO, build_registry
from ai_router.routing.date_context import date_context
from ai_router.routing.router import Router
from ai_router.server import Server
from ai_router.settings import Settings, SettingsError, load_settings
from ai_router.upstream.alarms import Alarms
from ai_router.upstream.client import UpstreamClient
from ai_router.upstream.leg import Leg


@click.group()
@click.version_option(__version__, prog_name="ai-router")
def main() -> None:
    """A self-hosted, OpenAI-compatible routing proxy."""


@main.command()
def serve() -> None:
    """Serve the OpenAI API on HOST:PORT."""
    settings = _settings()
    if settings.primary_url is not None:
        _announce(settings)
        Server(settings).run()
        return
    click.echo(f"PRIMARY_URL is not set: starting {MODEL_NAME} on this CPU ...", err=True)
    try:
        embedded = start_embedded(settings.data_dir / "embedded.log")
    except EmbeddedUnavailable as problem:
        _die(str(problem))
    settings = dataclasses.replace(
        settings, primary_url=embedded.url, primary_model=embedded.model, primary_key=embedded.key, embedded=True
    )
    _announce(settings)
    Server(settings, after_fork=embedded.let_go).run()


@main.command()
def doctor() -> None:
    """Check the settings, the data directory and every backend; exit status 1 if something is wrong."""
    settings = _settings()
    problems = [*_data_dir_problems(settings), *_embedded_problems(settings)]
    if settings.primary_url is not None:
        problems += _backend_problems(settings)
    for problem in problems:
        click.echo(f"problem: {problem}")
    click.echo("all is well" if not problems else f"{len(problems)} problem(s)")
    sys.exit(1 if problems else 0)


@main.command()
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as one JSON object.")
def route(text: str, *, as_json: bool) -> None:
    """Decide where TEXT would be answered, without answering it."""
    settings = _settings()
    with _client() as client:
        decision = _decide(settings, client, text)
    if as_json:
        click.echo(orjson.dumps(dataclasses.asdict(decision), option=orjson.OPT_INDENT_2))
        return
    confidence = "" if decision.confidence is None else f", confidence {decision.confidence:.2f}"
    click.echo(f"{decision.label} -> {decision.route} (decided by {decision.decided_by}{confidence})")
    click.echo(decision.reason)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as problem:
        _die(str(problem))


def _die(message: str) -> NoReturn:
    click.echo(f"ai-router: {message}", err=True)
    sys.exit(2)


def _announce(settings: Settings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    parts = [f"primary {settings.primary_model}"]
    parts.append(f"classifier {settings.router_model}" if settings.classifier_enabled else "no classifier")
    parts.append(f"xAI {settings.xai_model}" if settings.xai_api_key else "no xAI key")
    click.echo(f"ai-router {__version__} on http://{host}:{settings.port}/v1 ({', '.join(parts)})", err=True)


def _data_dir_problems(settings: Settings) -> Iterator[str]:
    for folder in {settings.log_path.parent, settings.session_path}:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK):
            yield f"{existing} is not writable (DATA_DIR, LOG_FILE, SESSION_DIR)"


def _embedded_problems(settings: Settings) -> Iterator[str]:
    if settings.primary_url is not None:
        return
    try:
        weights = find_weights()
    except EmbeddedUnavailable as problem:
        yield str(problem)
    else:
        click.echo(f"primary: embedded, {MODEL_NAME} from {Path(weights).name}")


def _backend_problems(settings: Settings) -> Iterator[str]:
    registry = build_registry(settings)
    with _client() as client:
        checker = HealthChecker(client, registry.backends())
        report = checker.report()
        checker.close()
    for backend in registry.backends():
        health = report.backends[backend.name]
        state = f"ok, {health.latency_ms:.0f} ms" if health.ok else f"not ok: {health.last_error}"
        click.echo(f"{backend.name}: {backend.base_url} ({backend.model}) {state}")
        if not health.ok:
            yield f"{backend.name} is not well: {health.last_error}"
    if registry.xai is None:
        click.echo("xai: no XAI_API_KEY; COMPLEX and ENRICH go to the primary")
    if report.status not in (HEALTHY, UNHEALTHY):
        click.echo("the router would answer, with what is left")


@contextmanager
def _client() -> Iterator[UpstreamClient]:
    alarms = Alarms()
    client = UpstreamClient(alarms, pool_size=4)
    try:
        yield client
    finally:
        client.close()
        alarms.close()


def _decide(settings: Settings, client: UpstreamClient, text: str) -> Decision:
    # Deciding needs no primary; without one, a stand-in address completes the catalogue.
    registry = build_registry(
        settings if settings.primary_url else dataclasses.replace(settings, primary_url="http://127.0.0.1:9")
    )
    classifier = build_classifier(settings, registry, client)
    if classifier is not None:
        classifier.stop_waiting()
    router = Router(registry, classifier, use_rules=settings.fast_routing)
    request = _request(settings, text)
    return router.decide_at_once(request) or router.determine_route(request, Leg())


def _request(settings: Settings, text: str) -> ChatRequest:
    now, ids = datetime.now(UTC), Ids()
    arrival = Arrival(
        arrived_at=time.monotonic(),
        timestamp=now,
        request_id=ids.request_id(None),
        session_id=ids.session_id(),
        headers=(),
        date_context=date_context(now.astimezone()) if settings.date_context else "",
    )
    body = orjson.dumps({"model": AUTO, "messages": [{"role": "user", "content": text}]})
    return parse_chat_request(body, arrival)
