"""The command ``models``: what is in the catalogue, and, with --check, whether the providers still serve it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import orjson

from ai_router.cli.common import registry_of, settings_or_exit
from ai_router.errors import UpstreamError, UpstreamFailed
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession
from ai_router.providers.catalogue import Model, Provider
from ai_router.providers.errors import error_from_response
from ai_router.providers.names import listed_as
from ai_router.providers.registry import Backend, Registry

_MAX_SHOWN_UNKNOWN = 8
_TIMEOUT_S = 15.0
"""For a provider's whole list of models."""
_MAX_BODY_BYTES = 16 << 20


@click.command()
@click.option("--check", is_flag=True, help="Compare with each provider's own list, where a key is set.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models(*, check: bool, as_json: bool) -> None:
    """List the providers and models of the catalogue; exit status 1 if --check finds one missing."""
    registry = registry_of(settings_or_exit())
    checks = dict(_check_providers(registry)) if check else {}
    if as_json:
        click.echo(orjson.dumps(_as_json(registry, checks), option=orjson.OPT_INDENT_2))
    else:
        for line in _text_lines(registry, checks):
            click.echo(line)
    sys.exit(1 if any(not isinstance(check, Comparison) or check.missing for check in checks.values()) else 0)


def _check_providers(registry: Registry) -> Iterator[tuple[str, Comparison | str]]:
    """For each provider with a key the comparison with its own list, or why there is none, in one line."""
    with BackendSession() as session:
        for name, backend in registry.clouds.items():
            try:
                yield name, compare(backend, served_models(session, backend))
            except UpstreamError as problem:
                yield name, problem.detail


def _text_lines(registry: Registry, checks: Mapping[str, Comparison | str]) -> Iterator[str]:
    for route, chain in registry.chains.items():
        yield f"{route:9} {' -> '.join(f'{candidate.backend.name} ({candidate.model})' for candidate in chain)}"
    searchers = " -> ".join(f"{searcher.backend.name} ({searcher.search.model})" for searcher in registry.searchers)
    yield f"{'search':9} {searchers or 'nobody'}"
    for name, provider in registry.catalogue.providers.items():
        yield ""
        state = "ready" if name in registry.clouds else f"{provider.key} is not set"
        yield f"{provider.title or name}: {provider.base_url} ({provider.family}), {state}"
        for model, facts in provider.models.items():
            yield f"  {_model_line(name, model, facts, default=model == provider.default_model)}"
        yield from (f"  {line}" for line in _retired_lines(provider))
        if name in checks:
            yield from (f"  {line}" for line in _check_lines(checks[name]))


def _model_line(provider: str, model: str, facts: Model, *, default: bool) -> str:
    context = "" if facts.context is None else f"{facts.context // 1000}K"
    abilities = "" if facts.capabilities is None else " ".join(sorted(facts.capabilities))
    price = "" if facts.price is None else f"${facts.price.input:g}/{facts.price.output:g}"
    mark = " (default)" if default else ""
    return f"{listed_as(provider, model):48} {context:>6}  {price:>11}  {abilities}{mark}".rstrip()


def _retired_lines(provider: Provider) -> Iterator[str]:
    today = datetime.now(UTC).date()
    for name, entry in provider.retired.items():
        when = "retired" if entry.on is None or entry.on <= today else f"until {entry.on}"
        yield f"{name} -> {entry.replaced_by} ({when})"


def _check_lines(check: Comparison | str) -> Iterator[str]:
    if isinstance(check, str):
        yield f"check: no answer: {check}"
        return
    for model in check.missing:
        yield f"check: {model} is not served"
    if not check.missing:
        yield "check: all of them are served"
    if check.unknown:
        more = "" if len(check.unknown) <= _MAX_SHOWN_UNKNOWN else ", ..."
        shown = ", ".join(check.unknown[:_MAX_SHOWN_UNKNOWN])
        yield f"check: served but not listed: {len(check.unknown)} ({shown}{more})"


def _as_json(registry: Registry, checks: Mapping[str, Comparison | str]) -> dict[str, Any]:
    check = {
        name: {"error": each} if isinstance(each, str) else {"missing": each.missing, "unknown": each.unknown}
        for name, each in checks.items()
    }
    return {
        "chains": {route: [candidate.full_name for candidate in chain] for route, chain in registry.chains.items()},
        "providers": {
            name: {**msgspec.to_builtins(provider), "configured": name in registry.clouds}
            for name, provider in registry.catalogue.providers.items()
        },
        **({"check": check} if checks else {}),
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """``missing``: models of the catalogue that the provider does not list. ``unknown``: those that only it lists."""

    missing: Sequence[str]
    unknown: Sequence[str]


def served_models(session: BackendSession, backend: Backend) -> frozenset[str]:
    """The ids in a provider's GET /models, ``{"data": [{"id": ...}, ...]}``.

    Raises UpstreamError if there is no answer, or one of another status or shape.
    """
    upstream_request = UpstreamRequest(
        source=backend.source,
        method="GET",
        url=backend.url("/models"),
        timeouts=Timeouts(connect=_TIMEOUT_S, total=_TIMEOUT_S, idle=_TIMEOUT_S),
        headers=backend.headers,
        secret=backend.key,
    )
    response = session.fetch(upstream_request, _MAX_BODY_BYTES)
    if response.status != 200:
        raise error_from_response(response.status, response.headers, response.body, upstream_request)
    try:
        entries = orjson.loads(response.body)["data"]
        # Gemini's ids begin with models/.
        return frozenset(str(entry["id"]).removeprefix("models/") for entry in entries)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UpstreamFailed("its list of models is of no shape that is known", upstream_request.source) from None


def compare(backend: Backend, served: frozenset[str]) -> Comparison:
    """Compare a provider's entry in the catalogue, and its default model, with the ids that it ``served``.

    Presets are no models and are not listed. An id with a date (gpt-6-2026-08-01) stands for the name without it.
    """
    models = {} if backend.provider is None else backend.provider.models
    catalogued = {name for name, facts in models.items() if facts.send_as == "model"} | (
        {backend.model} - {"", *models}
    )
    dated = {name for name in catalogued if any(served_id.startswith(f"{name}-") for served_id in served)}
    return Comparison(sorted(catalogued - served - dated), sorted(served - catalogued))
