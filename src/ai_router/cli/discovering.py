"""``doctor --discover``: look for servers of models, propose, ask, and write .env."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import click
from dotenv import dotenv_values, set_key

from ai_router.config_loading import in_environment
from ai_router.config_values import base_url
from ai_router.discovery.proposal import Choice, choices, classifier_beside, settings_of, urls_of
from ai_router.discovery.weights import FoundFile, find_weights
from ai_router.providers.servers import LOCKED, PORTS, FoundServer, find_servers

_HERE = "127.0.0.1"
_MAX_SHOWN = 20

T = TypeVar("T")


def discover_and_write(addresses: Sequence[str], *, yes: bool) -> None:
    """Look on this machine and at ``addresses``; ask what to take, and whether to write it. ``yes`` answers both."""
    urls = [url for address in (_HERE, *addresses) for url in _urls_of(address)]
    servers = find_servers(list(dict.fromkeys(urls)))
    _show(servers)
    found = choices(servers)
    settings = _ask_for_models(found, yes=yes) or _ask_for_weights(yes=yes)
    if settings:
        _write(settings, yes=yes)


def _urls_of(address: str) -> Sequence[str]:
    try:
        return [base_url(url) for url in urls_of(address, PORTS)]
    except ValueError as problem:
        raise click.UsageError(f"--at {address!r}: {problem}") from None


def _show(servers: Sequence[FoundServer]) -> None:
    if not servers:
        click.echo("no server of models found; --at HOST[:PORT] looks elsewhere")
    for server in servers:
        what = "not looked into" if server.kind == LOCKED else f"{len(server.models)} model(s)"
        click.echo(f"found: {server.kind} at {server.url}, {what}")


def _ask_for_models(found: Sequence[Choice], *, yes: bool) -> Mapping[str, str]:
    """The settings for a primary and perhaps a classifier; empty: the owner wants none of them, or there is none."""
    if not found:
        return {}
    shown = found[:_MAX_SHOWN]
    click.echo("models, the best for a primary first (0: none of them):")
    for number, choice in enumerate(shown, start=1):
        click.echo(f"  {number:2}  {_described(choice)}")
    primary = _picked(shown, "primary", default=1, yes=yes)
    if primary is None:
        return {}
    proposed = classifier_beside(primary, shown)
    click.echo("a classifier is optional: without one the small model in the router decides alone")
    return settings_of(primary, _picked(shown, "classifier", default=_number(shown, proposed), yes=yes))


def _ask_for_weights(*, yes: bool) -> Mapping[str, str]:
    """The settings for an embedded model from a file of the owner's; never taken without being asked for."""
    files = find_weights(Path.home())[:_MAX_SHOWN]
    if not files or yes:
        return {}
    click.echo("model files for the embedded model, on this CPU (0: the packaged one):")
    for number, file in enumerate(files, start=1):
        click.echo(f"  {number:2}  {file.path}  {file.bytes / 1e9:.1f} GB")
    picked: FoundFile | None = _picked(files, "embedded model", default=0, yes=yes)
    if picked is None:
        return {}
    return {"EMBEDDED_MODEL": str(picked.path), "PRIMARY_URL": ""}


def _picked(of: Sequence[T], what: str, *, default: int, yes: bool) -> T | None:
    """The one with the number that is answered; None for 0."""
    number = default if yes else click.prompt(what, default=default, type=click.IntRange(0, len(of)))
    return of[number - 1] if number else None


def _number(of: Sequence[Choice], choice: Choice | None) -> int:
    return 0 if choice is None else of.index(choice) + 1


def _described(choice: Choice) -> str:
    size = "size unknown" if choice.model.billions is None else f"{choice.model.billions:.3g}B"
    state = ", not in memory" if choice.model.loaded is False else ""
    return f"{choice.model.name} ({size}{state}) on {choice.server.kind}, {choice.server.url}"


def _write(settings: Mapping[str, str], *, yes: bool) -> None:
    """Set them in the .env file of this directory, and leave its other lines as they are."""
    # Where .env is a link, its target is changed.
    file = Path(".env").resolve()
    present = dotenv_values(file) if file.is_file() else {}
    changed = {name: value for name, value in settings.items() if (present.get(name) or "") != value}
    for name, value in changed.items():
        click.echo(f"{name}={value}")
        if in_environment(name):
            click.echo(f"note: {name} in the environment wins over .env")
    if not changed:
        click.echo(".env says so already")
        return
    if not yes and not click.confirm(f"write {'them' if len(changed) > 1 else 'it'} to .env?", default=True):
        return
    # Keys of clouds will stand in it, too.
    file.touch(mode=0o600)
    for name, value in changed.items():
        set_key(file, name, value)
    click.echo("written")
