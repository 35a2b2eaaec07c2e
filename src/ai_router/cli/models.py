"""``models``: what the catalogue knows, and whether the providers agree."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import orjson

from ai_router.cli.common import registry_of, settings_or_exit, upstream_client
from ai_router.errors import UpstreamError
from ai_router.providers.catalogue import Model, Provider
from ai_router.providers.model_check import Comparison, compare, served_models
from ai_router.providers.names import listed_as
from ai_router.providers.registry import Registry

_SHOWN_UNKNOWN = 8


@click.command()
@click.option("--check", is_flag=True, help="Compare with each provider's own list, where a key is set.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models(*, check: bool, as_json: bool) -> None:
    """List the providers and models of the catalogue; exit status 1 if --check finds one missing."""
    registry = registry_of(settings_or_exit())
    found = dict(_checked(registry)) if check else {}
    if as_json:
        click.echo(orjson.dumps(_as_json(registry, found), option=orjson.OPT_INDENT_2))
    else:
        for line in _lines(registry, found):
            click.echo(line)
    sys.exit(1 if any(not isinstance(result, Comparison) or result.missing for result in found.values()) else 0)


def _checked(registry: Registry) -> Iterator[tuple[str, Comparison | str]]:
    """For each provider with a key the comparison with its own list, or why there is none."""
    with upstream_client() as client:
        for name, backend in registry.clouds.items():
            try:
                yield name, compare(backend, served_models(client, backend))
            except UpstreamError as problem:
                yield name, problem.detail


def _lines(registry: Registry, found: Mapping[str, Comparison | str]) -> Iterator[str]:
    for route, chain in registry.chains.items():
        yield f"{route:9} {' -> '.join(f'{candidate.backend.name} ({candidate.model})' for candidate in chain)}"
    searchers = " -> ".join(f"{searcher.backend.name} ({searcher.how.model})" for searcher in registry.searchers)
    yield f"{'search':9} {searchers or 'nobody'}"
    for name, provider in registry.catalogue.providers.items():
        yield ""
        state = "ready" if name in registry.clouds else f"{provider.key} is not set"
        yield f"{provider.title or name}: {provider.base_url} ({provider.family}), {state}"
        for model, facts in provider.models.items():
            yield f"  {_row(name, model, facts, default=model == provider.default_model)}"
        yield from (f"  {line}" for line in _retired(provider))
        if name in found:
            yield from (f"  {line}" for line in _verdict(found[name]))


def _row(provider: str, model: str, facts: Model, *, default: bool) -> str:
    context = "" if facts.context is None else f"{facts.context // 1000}K"
    abilities = "" if facts.capabilities is None else " ".join(sorted(facts.capabilities))
    price = "" if facts.price is None else f"${facts.price.input:g}/{facts.price.output:g}"
    mark = " (default)" if default else ""
    return f"{listed_as(provider, model):48} {context:>6}  {price:>11}  {abilities}{mark}".rstrip()


def _retired(provider: Provider) -> Iterator[str]:
    today = datetime.now(UTC).date()
    for name, entry in provider.retired.items():
        when = "retired" if entry.on is None or entry.on <= today else f"until {entry.on}"
        yield f"{name} -> {entry.replaced_by} ({when})"


def _verdict(found: Comparison | str) -> Iterator[str]:
    if isinstance(found, str):
        yield f"check: no answer: {found}"
        return
    for model in found.missing:
        yield f"check: {model} is not served"
    if not found.missing:
        yield "check: all of them are served"
    if found.unknown:
        more = "" if len(found.unknown) <= _SHOWN_UNKNOWN else ", ..."
        yield f"check: served but not listed: {len(found.unknown)} ({', '.join(found.unknown[:_SHOWN_UNKNOWN])}{more})"


def _as_json(registry: Registry, found: Mapping[str, Comparison | str]) -> dict[str, Any]:
    results = {
        name: {"error": each} if isinstance(each, str) else {"missing": each.missing, "unknown": each.unknown}
        for name, each in found.items()
    }
    return {
        "chains": {
            route: [f"{candidate.backend.name}/{candidate.model}" for candidate in chain]
            for route, chain in registry.chains.items()
        },
        "providers": {
            name: {**msgspec.to_builtins(provider), "configured": name in registry.clouds}
            for name, provider in registry.catalogue.providers.items()
        },
        **({"check": results} if found else {}),
    }
