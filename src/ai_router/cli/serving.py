"""``serve`` and ``doctor``."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from ai_router import __version__
from ai_router.cli.common import exit_with, registry_of, settings_or_exit
from ai_router.cli.discovering import discover_and_write
from ai_router.config import Settings
from ai_router.config_docs import unknown_names
from ai_router.dispatch.health import BackendHealth, HealthChecker
from ai_router.embedded.start import EmbeddedUnavailable, find_weights, name_of, start_embedded
from ai_router.http.session import BackendSession
from ai_router.observability.log_file import OWN_STREAMS
from ai_router.providers.registry import Backend, Registry
from ai_router.providers.servers import find_servers
from ai_router.routing.head.own_store import OwnRoutesStore
from ai_router.routing.labels import Labels
from ai_router.runtime import pid_file
from ai_router.server.application import Server
from ai_router.shared.client import SharedClient, SharedUnavailable
from ai_router.shared.own_server import OwnServerUnavailable, start_own_server

_CALLS_A_THREAD = 3
"""A request with a thread has at most so many calls at once: the classifier twice, the speculation."""
_DESCRIPTORS_OF_OUR_OWN = 100
_OLDEST_REDIS = 6


@click.command()
def serve() -> None:
    """Serve the OpenAI API on HOST:PORT."""
    settings = settings_or_exit()
    registry = registry_of(settings)
    for problem in (*_log_problems(settings), *_port_problems(settings), *_descriptor_problems(settings)):
        exit_with(problem)
    for note in registry.notes:
        click.echo(f"ai-router: {note}", err=True)
    for problem in _session_problems(settings):
        click.echo(f"ai-router: no sessions will be saved: {problem}", err=True)
    # Children that end when nobody holds their stdin any more: a forked worker must not keep them alive.
    releases: list[Callable[[], None]] = []
    settings = _with_shared_state(_with_primary(settings, releases), releases)
    Server(settings, when_ready=lambda: _announce(settings), after_fork=lambda: _call_all(releases)).run()


def _with_primary(settings: Settings, releases: list[Callable[[], None]]) -> Settings:
    """The settings with a primary: where none is set, the model on this processor, started now."""
    if settings.primary_url is not None:
        return settings
    name = name_of(settings.embedded_model)
    click.echo(f"PRIMARY_URL is not set: starting {name} on this CPU ...", err=True)
    try:
        embedded = start_embedded(settings.data_dir / "embedded.log", settings.embedded_model)
    except EmbeddedUnavailable as problem:
        exit_with(str(problem))
    releases.append(embedded.release)
    return settings.model_copy(
        update={
            "primary_url": embedded.url,
            "primary_model": embedded.model,
            "primary_key": embedded.key,
            "embedded": True,
        }
    )


def _with_shared_state(settings: Settings, releases: list[Callable[[], None]]) -> Settings:
    """The settings with a place for what workers share: where none is set, a Valkey of their own, started now."""
    if not settings.shares_state or settings.redis_url is not None:
        return settings
    try:
        own = start_own_server(settings.data_dir / "valkey.log")
    except OwnServerUnavailable as problem:
        exit_with(str(problem))
    releases.append(own.release)
    return settings.model_copy(update={"redis_url": own.url, "own_redis": True})


def _call_all(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        function()


@click.command()
def reload() -> None:
    """Have the running router take over changed settings and its catalogue's file; a bad file changes nothing."""
    settings = settings_or_exit()
    registry_of(settings)
    file = pid_file(settings)
    try:
        pid = int(file.read_text())
        os.kill(pid, signal.SIGHUP)
    except FileNotFoundError:
        exit_with(f"no router runs here: there is no {file} (is DATA_DIR the same?)")
    except (ValueError, ProcessLookupError):
        exit_with(f"no router runs here: {file} is of one that has ended")
    except PermissionError:
        exit_with(f"the router (process {pid}) is somebody else's")
    click.echo(f"told the router (process {pid}); its log says what it has taken over")


@click.command()
@click.option("--discover", is_flag=True, help="First look for servers of models here, and offer to write .env.")
@click.option("--at", "addresses", multiple=True, metavar="HOST[:PORT]", help="With --discover: look there, too.")
@click.option("--yes", is_flag=True, help="With --discover: take what is proposed.")
def doctor(*, discover: bool, addresses: Sequence[str], yes: bool) -> None:
    """Check the settings, the data directory, every backend and Redis; exit status 1 if something is wrong."""
    if (addresses or yes) and not discover:
        raise click.UsageError("--at and --yes belong to --discover")
    if discover:
        discover_and_write(addresses, yes=yes)
    settings = settings_or_exit()
    problems = [
        *_log_problems(settings),
        *_session_problems(settings),
        *_embedded_problems(settings),
        *_backend_problems(settings),
        *_redis_problems(settings),
    ]
    for name in unknown_names():
        # No problem by itself: the file may serve others, too, compose among them.
        click.echo(f"note: .env: {name} is no setting of the router")
    for problem in problems:
        click.echo(f"problem: {problem}")
    click.echo("all is well" if not problems else f"{len(problems)} problem(s)")
    sys.exit(1 if problems else 0)


def _announce(settings: Settings) -> None:
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    parts = [f"primary {settings.primary_model}"]
    parts.append(f"classifier {settings.router_model}" if settings.classifier_enabled else "no classifier")
    clouds = [f"{backend.name} {backend.model}".rstrip() for backend in registry_of(settings).clouds.values()]
    parts += clouds or ["no cloud"]
    click.echo(f"ai-router {__version__} on http://{host}:{settings.port}/v1 ({', '.join(parts)})", err=True)


def _log_problems(settings: Settings) -> Iterator[str]:
    """Why the log cannot be written, found by trying."""
    if settings.log_path.is_dir():
        yield f"LOG_FILE {settings.log_path} is a directory"
    elif str(settings.log_path) in OWN_STREAMS or (settings.log_path.exists() and not settings.log_path.is_file()):
        # The folder of /dev/stdout and its like is nobody's to write to.
        if str(settings.log_path) not in OWN_STREAMS and not os.access(settings.log_path, os.W_OK):
            yield f"LOG_FILE: {settings.log_path} cannot be written"
    elif problem := _not_writable(settings.log_path.parent):
        yield f"LOG_FILE (or DATA_DIR): {problem}"


def _session_problems(settings: Settings) -> Iterator[str]:
    """Why sessions cannot be saved; requests are answered without them."""
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
    """Why HOST:PORT cannot be listened on; asked before anything is started."""
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


def _descriptor_problems(settings: Settings) -> Iterator[str]:
    """Too few file descriptors for what the settings admit. The soft limit is raised as far as it goes."""
    calls = settings.request_threads * _CALLS_A_THREAD + settings.max_streams
    needed = settings.max_connections + calls + _DESCRIPTORS_OF_OUR_OWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = max(needed, soft) if hard == resource.RLIM_INFINITY else min(max(needed, soft), hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        yield (
            f"THREADS {settings.threads} and MAX_STREAMS {settings.max_streams} may need {needed} file descriptors and "
            f"the system allows {allowed}: lower them or raise the limit (ulimit -n, LimitNOFILE=)"
        )


def _embedded_problems(settings: Settings) -> Iterator[str]:
    if settings.primary_url is not None:
        return
    try:
        weights = find_weights(settings.embedded_model)
    except EmbeddedUnavailable as problem:
        yield str(problem)
    else:
        click.echo(f"primary: embedded, {name_of(settings.embedded_model)} from {weights.name}")


def _backend_problems(settings: Settings) -> Iterator[str]:
    """Which backends do not answer. The embedded primary, which only ``serve`` starts, is not asked."""
    registry = registry_of(settings)
    asked = [backend for backend in registry.backends() if settings.primary_url or backend is not registry.primary]
    for backend, health in _health_of(asked):
        state = f"ok, {health.latency_ms:.0f} ms" if health.ok else f"not ok: {health.last_error}"
        click.echo(f"{backend.name}: {backend.base_url} ({backend.model}) {state}")
        if not health.ok:
            yield f"{backend.name} is not well: {health.last_error}"
    if registry.classifier is None:
        click.echo("classifier: none; the fast path decides")
    for note in registry.notes:
        click.echo(f"note: {note}")
    if put_out := _in_each_others_way(registry):
        click.echo(f"note: {put_out}")
    if waiting := _routes_to_learn(settings, registry):
        click.echo(f"note: not learned yet, or changed since: {', '.join(waiting)} ('ai-router learn')")
    if not registry.clouds:
        click.echo("no cloud: no key of any is set; COMPLEX and ENRICH go to the primary")


def _in_each_others_way(registry: Registry) -> str | None:
    """That one server holds the classifier's model or the primary's, not both; None: it is not known to be so."""
    primary, classifier = registry.primary, registry.classifier
    if classifier is None or classifier.base_url != primary.base_url or classifier.model == primary.model:
        return None
    for server in find_servers([primary.base_url]):
        # Ollama calls a model by this tag where its owner leaves it out.
        loaded = {model.name.removesuffix(":latest") for model in server.models if model.loaded is not False}
        needed = {model.removesuffix(":latest") for model in (primary.model, classifier.model)}
        if server.loads_on_demand and not needed <= loaded:
            return (
                f"classifier and primary are two models of one {server.kind}, and not both are in memory now: where "
                "they do not fit together, each request loads both; unset ROUTER_URL, or give the classifier a server "
                "of its own"
            )
    return None


def _routes_to_learn(settings: Settings, registry: Registry) -> list[str]:
    """The owner's routes that the model in the router does not know; the classifier does, and clients may name them."""
    labels, store = Labels(registry.catalogue.routes), OwnRoutesStore(settings.data_dir)
    store.want(labels.digests)
    return [label.lower() for label in labels.own_routes if label not in store.current.labels]


def _redis_problems(settings: Settings) -> Iterator[str]:
    """Why processes could not share their state; each would decide for itself."""
    if settings.redis_url is None:
        return
    client, started = SharedClient(settings.redis_url), time.monotonic()
    try:
        found = client.check(lambda redis: redis.info("server"))
    except SharedUnavailable:
        yield f"REDIS_URL: Redis cannot be reached: {client.last_error}"
        return
    finally:
        client.close()
    took_ms = (time.monotonic() - started) * 1000
    name, version = found.get("server_name", "redis"), found.get("valkey_version") or found["redis_version"]
    click.echo(f"redis: {name} {version}, ok, {took_ms:.0f} ms")
    if int(version.split(".")[0]) < _OLDEST_REDIS:
        yield f"REDIS_URL: {name} {version} is too old; {_OLDEST_REDIS} is the oldest that is known to work"


def _health_of(backends: Sequence[Backend]) -> Sequence[tuple[Backend, BackendHealth]]:
    if not backends:
        return []
    with BackendSession() as session:
        checker = HealthChecker(session, backends)
        report = checker.report()
        checker.close()
    return [(backend, report.backends[backend.name]) for backend in backends]
