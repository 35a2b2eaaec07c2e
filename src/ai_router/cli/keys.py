"""The command ``keys``: virtual keys, in the database that the router uses. It need not run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import orjson

from ai_router.cli.common import exit_with, registry_of, settings_or_exit
from ai_router.errors import NotFound, StoreGone, StoreUnavailable
from ai_router.providers.catalogue import DOORS
from ai_router.routing.dial import HIGHEST, LOWEST
from ai_router.storage.key_rows import KeyRow
from ai_router.virtual_key import DEFAULT_ROUTES, AtLimit, KeyLimits, VirtualKey, new_id, new_secret

if TYPE_CHECKING:
    from ai_router.storage.keys import KeyStore

_ORGANIZATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Seconds, of ``30d``, ``12h``, ``15m``, ``10s``."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter("must look like 30d, 12h, 15m or 10s")
    return int(found[1]) * float(_UNITS[found[2]])


def _names(_context: click.Context, _option: click.Parameter, text: str | None) -> Sequence[str] | None:
    """Names between commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _routes(context: click.Context, option: click.Parameter, text: str | None) -> Sequence[str] | None:
    """Names of routes between commas. A provider's is one, too: all of its models may be named then."""
    names = _names(context, option, text)
    if names is None:
        return None
    if not names:
        raise click.BadParameter("must name one at least")
    catalogue = registry_of(settings_or_exit()).catalogue
    known = [*sorted(DEFAULT_ROUTES), *DOORS, *catalogue.routes, *catalogue.providers]
    if unknown := [name for name in names if name not in known]:
        # The router may have another catalogue than this machine, or get one.
        click.echo(f"there is no route '{', '.join(unknown)}' here; there are {', '.join(known)}", err=True)
    return names


def _name(_context: click.Context, _argument: click.Parameter, text: str) -> str:
    if not text.strip():
        raise click.BadParameter("must not be empty")
    return text


def _organization(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if text and not _ORGANIZATION.fullmatch(text):
        raise click.BadParameter("may have 1 to 64 of A-Z a-z 0-9 . _ -")
    return text


_COUNT = click.IntRange(1, 2**31 - 1)
_QUALITY = click.IntRange(LOWEST, HIGHEST)


class _Amount(click.FloatRange):
    """A number of USD. NaN, which is neither too small nor too large, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        amount = float(super().convert(value, param, ctx))
        if math.isnan(amount):
            self.fail("must be a number", param, ctx)
        return amount


_USD = _Amount(0, 1_000_000)


@click.group()
def keys() -> None:
    """Keys for others, each with what it may do and use. VIRTUAL_KEYS=on makes the router know them."""


@keys.command()
@click.argument("name", callback=_name)
@click.option("--org", default="", callback=_organization, help="All of its requests belong to this org.")
@click.option("--user", default="", help="Whose it is, for your own eyes.")
@click.option(
    "--routes",
    callback=_routes,
    help=f"Where its requests may be decided to go, between commas. Else: {','.join(sorted(DEFAULT_ROUTES))}.",
)
@click.option("--models", callback=_names, help="provider/model that it may name, with * for any. Else: none.")
@click.option("--rpm", type=_COUNT, help="Requests per minute.")
@click.option("--tpm", type=_COUNT, help="Tokens per minute.")
@click.option("--concurrency", type=_COUNT, help="Requests at a time.")
@click.option("--daily-usd", type=_USD, help="Budget per day (UTC).")
@click.option("--monthly-usd", type=_USD, help="Budget per month (UTC).")
@click.option(
    "--at-limit",
    type=click.Choice([each.value for each in AtLimit]),
    default=AtLimit.REFUSE.value,
    help="Once a budget is used up.",
)
@click.option("--local-only", is_flag=True, help="Nothing of its requests may leave the local network.")
@click.option("--quality", type=_QUALITY, help="From 0, nothing goes to the cloud, to 10, all that could gain by it.")
@click.option("--expires", callback=_duration, help="After how long it is good for nothing: 30d, 12h.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create(
    name: str,
    org: str,
    user: str,
    routes: Sequence[str] | None,
    models: Sequence[str] | None,
    rpm: int | None,
    tpm: int | None,
    concurrency: int | None,
    daily_usd: float | None,
    monthly_usd: float | None,
    at_limit: str,
    quality: int | None,
    expires: float | None,
    *,
    local_only: bool,
    as_json: bool,
) -> None:
    """Make a key called NAME. Its secret is shown this once."""
    key = VirtualKey(
        id=new_id(),
        name=name[:128],
        organization=org,
        user=user[:128],
        routes=DEFAULT_ROUTES if routes is None else frozenset(routes),
        models=tuple(models or ()),
        limits=KeyLimits(rpm, tpm, concurrency, daily_usd, monthly_usd),
        at_limit=AtLimit(at_limit),
        expires_at=None if expires is None else time.time() + expires,
        local_only=local_only,
        quality=quality,
    )
    secret = new_secret()
    with _opened() as store:
        store.create(key, secret)
    _show_secret(key.id, secret, as_json=as_json)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_keys(*, as_json: bool) -> None:
    """All keys, without their secrets."""
    with _opened() as store:
        rows = store.all()
    for row in rows:
        click.echo(orjson.dumps(_as_json(row)) if as_json else _as_text(row))
    if not rows and not as_json:
        click.echo("there are no keys; 'ai-router keys create NAME' makes one")


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Make a key good for nothing, at once and for ever."""
    with _opened() as store:
        store.revoke(key_id)
    click.echo(f"{key_id} is revoked; a running router knows within 5 seconds")


@keys.command()
@click.argument("key_id")
@click.option("--keep-old", default="0s", callback=_duration, help="How long the old secret is still good: 24h.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rotate(key_id: str, keep_old: float, *, as_json: bool) -> None:
    """Give a key another secret, which is shown this once."""
    secret = new_secret()
    with _opened() as store:
        store.rotate(key_id, secret, keep_old)
    _show_secret(key_id, secret, as_json=as_json)


@contextmanager
def _opened() -> Iterator[KeyStore]:
    """The store; ends the command with one line where that fails."""
    from ai_router.storage.keys import KeyStore  # noqa: PLC0415 - slow to load

    store, settings = None, settings_or_exit()
    try:
        store = KeyStore(settings.usage_database)
        yield store
    except StoreGone as problem:
        exit_with(f"the database was broken, and no key in it is known any more: {problem.detail}")
    except StoreUnavailable as problem:
        exit_with(f"the database does not answer: {problem.detail}")
    except NotFound as problem:
        exit_with(str(problem))
    finally:
        if store is not None:
            store.close()


def _show_secret(key_id: str, secret: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps({"id": key_id, "secret": secret}))
        return
    click.echo(f"{key_id}\n{secret}")
    click.echo("This is shown once: only its digest is kept.", err=True)
    if not settings_or_exit().virtual_keys:
        click.echo("VIRTUAL_KEYS is off: the router will not know it.", err=True)


def _state(row: KeyRow) -> str:
    expires_at = row.key.expires_at
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= time.time() else "good"


def _as_text(row: KeyRow) -> str:
    key, limits = row.key, row.key.limits
    parts = {
        "org": key.organization,
        "user": key.user,
        "routes": ",".join(sorted(key.routes)),
        "models": ",".join(key.models),
        "rpm": limits.requests_per_minute,
        "tpm": limits.tokens_per_minute,
        "concurrency": limits.concurrency,
        "daily_usd": limits.daily_usd,
        "monthly_usd": limits.monthly_usd,
        "at_limit": key.at_limit if limits.has_budget else None,
        "expires": _moment(key.expires_at),
        "local_only": "yes" if key.local_only else None,
        "quality": key.quality,
    }
    shown = " ".join(f"{name}={value}" for name, value in parts.items() if value not in (None, ""))
    return f"{key.id} {_state(row):8} {row.shown} {key.name!r} {shown}"


def _as_json(row: KeyRow) -> dict[str, Any]:
    key = row.key
    return {
        "id": key.id,
        "state": _state(row),
        "name": key.name,
        "shown": row.shown,
        "org": key.organization,
        "user": key.user,
        "routes": sorted(key.routes),
        "models": key.models,
        "limits": key.limits,
        "at_limit": key.at_limit,
        "local_only": key.local_only,
        "quality": key.quality,
        "created_at": _moment(row.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(row.revoked_at),
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
