"""Limits of the tokens of an answer, in the fields of a request, whatever its API calls them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from ai_router.types import ChatRequest

_IN_CHAT = ("max_tokens", "max_completion_tokens")


def limit_in(request: ChatRequest) -> int | None:
    """The largest limit of tokens that a request has; None: it has none."""
    found = [limit for name in _IN_CHAT if (limit := _limit(request.params, name)) is not None]
    return max(found) if found else None


def with_token_limit(request: ChatRequest, limit: int) -> ChatRequest:
    """The request, with ``limit`` for its answer if it has no limit."""
    return request if limit_in(request) is not None else _changed(request, limit)


def capped(request: ChatRequest, most: int) -> ChatRequest:
    """The request, whose answer may have at most so many tokens; itself, if it asks for no more."""
    limit = limit_in(request)
    return request if limit is not None and limit <= most else _changed(request, most)


def _limit(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _changed(request: ChatRequest, limit: int) -> ChatRequest:
    form = request.client_form
    if form is not None and form.api.token_limits:
        fields = _limited(form.fields, limit, form.api.token_limits)
        form = replace(form, fields=_without_long_thoughts(fields, limit))
    return replace(request, params=_limited(request.params, limit, _IN_CHAT), client_form=form)


def _limited(fields: Mapping[str, Any], limit: int, names: Sequence[str]) -> Mapping[str, Any]:
    """The fields, of which those called ``names`` are no larger than ``limit``; there is one at least. One that is null
    goes: it would take the place of another that a provider's rules rename to it."""
    present = [name for name in names if fields.get(name) is not None] or names[:1]
    others = {name: value for name, value in fields.items() if value is not None or name not in names}
    return {**others, **{name: min(_limit(fields, name) or limit, limit) for name in present}}


def _without_long_thoughts(fields: Mapping[str, Any], limit: int) -> Mapping[str, Any]:
    """The fields without ``thinking`` if that may take the whole limit: Anthropic's API refuses it then."""
    thinking = orjson.loads(orjson.dumps(fields.get("thinking")))
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int) or budget < limit:
        return fields
    return {name: value for name, value in fields.items() if name != "thinking"}
