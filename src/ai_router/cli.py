"""The command ``ai-router``."""

from __future__ import annotations

import dataclasses
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
import orjson

from ai_router import __version__
from ai_router.api.parsing import Arrival, Ids, parse_chat_request
from ai_router.app import build_classifier
from ai_router.embedded.start import MODEL_NAME, EmbeddedUnavailable, find_weights, start_embedded
from ai_router.exchange import ChatRequest, Decision
from ai_router.execution.health import BackendHealth, HealthChecker
from ai_router.execution.plan import Plan, plan_answer
from ai_router.providers.registry import AUTO, Backend, Registry, build_registry
from ai_router.routing.date_context import date_context
from ai_router.routing.router import Router
from ai_router.server import Server
from ai_router.settings import Settings, SettingsError, load_settings, unknown_names
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
    for problem in (*_log_problems(settings), *_port_problems(settings)):
        _die(problem)
    for problem in _session_problems(settings):
        click.echo(f"ai-router: no sessions will be saved: {problem}", err=True)
    if settings.primary_url is not None:
        Server(settings, when_ready=lambda: _announce(settings)).run()
        return
    click.echo(f"PRIMARY_URL is not set: starting {MODEL_NAME} on this CPU ...", err=True)
    try:
        embedded = start_embedded(settings.data_dir / "embedded.log")
    except EmbeddedUnavailable as problem:
        _die(str(problem))
    with_model = dataclasses.replace(
        settings, primary_url=embedded.url, primary_model=embedded.model, primary_key=embedded.key, embedded=True
    )
    Server(with_model, when_ready=lambda: _announce(with_model), after_fork=embedded.let_go).run()


@main.command()
def doctor() -> None:
    """Check the settings, the data directory and every backend; exit status 1 if something is wrong."""
    settings = _settings()
    problems = [
        *_log_problems(settings),
        *_session_problems(settings),
        *_embedded_problems(settings),
        *_backend_problems(settings),
    ]
    for name in unknown_names():
        # No problem by itself: the file may serve others, too, compose among them.
        click.echo(f"note: .env: {name} is no setting of the router")
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
    registry = _registry(settings)
    with _client() as client:
        decision = _decide(settings, registry, client, text)
    plan = plan_answer(decision, registry, cloud_fallback=settings.cloud_fallback)
    if as_json:
        click.echo(orjson.dumps(_decision_document(decision, plan), option=orjson.OPT_INDENT_2))
        return
    confidence = "" if decision.confidence is None else f", confidence {decision.confidence:.2f}"
    click.echo(f"{decision.label} -> {decision.route} (decided by {decision.decided_by}{confidence})")
    click.echo(decision.reason)
    if plan.note:
        click.echo(plan.note)


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


def _log_problems(settings: Settings) -> Iterator[str]:
    """What keeps the log from being written, found by trying."""
    if settings.log_path.is_dir():
        yield f"LOG_FILE {settings.log_path} is a directory"
    elif problem := _not_writable(settings.log_path.parent):
        yield f"LOG_FILE (or DATA_DIR): {problem}"


def _session_problems(settings: Settings) -> Iterator[str]:
    """What keeps sessions from being saved; requests are answered all the same."""
    if problem := _not_writable(settings.session_path):
        yield f"SESSION_DIR (or DATA_DIR): {problem}"


def _not_writable(folder: Path) -> str | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as problem:
        return f"{folder} cannot be written: {problem.strerror}"


def _port_problems(settings: Settings) -> Iterator[str]:
    """Whether somebody else listens there, before anything is started that would have to be stopped again."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as problem:
        yield f"HOST {settings.host} is no address of this machine: {problem.strerror}"
    except OSError as problem:
        yield f"PORT {settings.port} on {settings.host} cannot be had: {problem.strerror}; set PORT to another"


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
    """Asks every backend but the embedded primary, which only ``serve`` starts."""
    registry = _registry(settings)
    asked = [backend for backend in registry.backends() if settings.primary_url or backend is not registry.primary]
    for backend, health in _health_of(asked):
        state = f"ok, {health.latency_ms:.0f} ms" if health.ok else f"not ok: {health.last_error}"
        click.echo(f"{backend.name}: {backend.base_url} ({backend.model}) {state}")
        if not health.ok:
            yield f"{backend.name} is not well: {health.last_error}"
    if registry.classifier is None:
        click.echo("classifier: none; a few rules decide")
    if registry.xai is None:
        click.echo("xai: no XAI_API_KEY; COMPLEX and ENRICH go to the primary")


def _health_of(backends: Sequence[Backend]) -> Sequence[tuple[Backend, BackendHealth]]:
    if not backends:
        return []
    with _client() as client:
        checker = HealthChecker(client, backends)
        report = checker.report()
        checker.close()
    return [(backend, report.backends[backend.name]) for backend in backends]


@contextmanager
def _client() -> Iterator[UpstreamClient]:
    alarms = Alarms()
    client = UpstreamClient(alarms, pool_size=4)
    try:
        yield client
    finally:
        client.close()
        alarms.close()


def _registry(settings: Settings) -> Registry:
    """The catalogue; with a stand-in address where the primary is the embedded one, which only ``serve`` starts."""
    if settings.primary_url:
        return build_registry(settings)
    return build_registry(dataclasses.replace(settings, primary_url="http://127.0.0.1:9", primary_model=MODEL_NAME))


def _decide(settings: Settings, registry: Registry, client: UpstreamClient, text: str) -> Decision:
    classifier = build_classifier(settings, registry, client)
    if classifier is not None:
        classifier.stop_waiting()
    router = Router(registry, classifier, use_rules=settings.fast_routing)
    request = _request(settings, text)
    return router.decide_at_once(request) or router.determine_route(request, Leg())


def _decision_document(decision: Decision, plan: Plan) -> dict[str, Any]:
    """The decision with what it leads to, numbers rounded."""
    fields = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(decision).items()
    }
    answered_by = [f"{candidate.backend.name}/{candidate.model}" for candidate in plan.candidates]
    return {**fields, "answered_by": answered_by, "note": plan.note}


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
