"""What several commands need: settings or a clean exit, a client, the backends, the classifier, a request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import click
import orjson

from ai_router.config import Settings, SettingsError
from ai_router.config_loading import load_settings
from ai_router.embedded.start import name_of
from ai_router.http.client import UpstreamClient
from ai_router.http.timers import TimerThread
from ai_router.privacy import build_finder
from ai_router.providers.building import build_registry
from ai_router.providers.registry import AUTO, Registry
from ai_router.routing.calibration_store import CalibrationStore
from ai_router.routing.classifier import Classifier
from ai_router.routing.labels import Labels
from ai_router.routing.prompt import local_date_context
from ai_router.types import ChatRequest, Message
from ai_router.web.requests import Arrival, Ids, parse_chat_request
from ai_router.wiring import build_classifier

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText


def settings_or_exit() -> Settings:
    """The settings; ends the command with one line if one is bad."""
    try:
        return load_settings()
    except SettingsError as problem:
        exit_with(str(problem))


def exit_with(message: str) -> NoReturn:
    """Print the message and end the command with status 2."""
    click.echo(f"ai-router: {message}", err=True)
    raise SystemExit(2)


@contextmanager
def upstream_client() -> Iterator[UpstreamClient]:
    """An HTTP client, closed at the end."""
    timers = TimerThread()
    client = UpstreamClient(timers, pool_size=4)
    try:
        yield client
    finally:
        client.close()
        timers.close()


def registry_of(settings: Settings) -> Registry:
    """The backends. The embedded primary, which only ``serve`` starts, has an address where nothing listens."""
    if not settings.primary_url:
        name = name_of(settings.embedded_model)
        settings = settings.model_copy(update={"primary_url": "http://127.0.0.1:9", "primary_model": name})
    try:
        registry = build_registry(settings)
        build_finder(settings, registry.catalogue)
    except SettingsError as problem:
        exit_with(str(problem))
    return registry


def labels_of(settings: Settings) -> Labels:
    """What requests can be decided to be."""
    return Labels(registry_of(settings).catalogue.routes)


@contextmanager
def opened_classifier(settings: Settings) -> Iterator[Classifier | None]:
    """The classifier, closed at the end; None if there is none. Not probed: it is asked in the configured mode."""
    with upstream_client() as client:
        classifier = build_classifier(settings, registry_of(settings), client)
        if classifier is None:
            yield None
            return
        classifier.labels = labels_of(settings)
        CalibrationStore(settings.data_dir, settings.router_model, classifier.use_calibration)
        classifier.assume_mode()
        try:
            yield classifier
        finally:
            classifier.close()


def request_of(settings: Settings, messages: Sequence[Message], finder: PrivateText | None = None) -> ChatRequest:
    """The request that the API would make of these messages, for the model ``auto``. ``finder``: finds what must not
    leave the local network; None: that is not looked for."""
    now, ids = datetime.now(UTC), Ids()
    arrival = Arrival(
        arrived_at=time.monotonic(),
        timestamp=now,
        request_id=ids.request_id(None),
        session_id=ids.session_id(),
        headers=(),
        date_context=local_date_context(now) if settings.date_context else "",
        finder=finder,
    )
    return parse_chat_request(orjson.dumps({"model": AUTO, "messages": messages}), arrival)
