"""Limits of the tokens of an answer, in the fields of a request, whatever its API calls them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ai_router.providers.fields import TOKEN_LIMITS
from ai_router.types import ChatRequest

_LIMIT_FIELD = {"responses": "max_output_tokens"}
"""The limit's name in APIs that do not call it max_tokens."""


def limit_in(fields: Mapping[str, object]) -> int | None:
    """The largest limit of tokens in a body; None: it has none."""
    found = [value for name in TOKEN_LIMITS if isinstance(value := fields.get(name), int) and value > 0]
    return max(found) if found else None


def with_token_limit(request: ChatRequest, limit: int) -> ChatRequest:
    """The request, with ``limit`` for its answer if it has no limit."""
    return request if limit_in(request.params) is not None else _changed(request, limit)


def capped(request: ChatRequest, most: int) -> ChatRequest:
    """The request, whose answer may have at most so many tokens; itself, if it asks for no more."""
    limit = limit_in(request.params)
    return request if limit is not None and limit <= most else _changed(request, most)


def _changed(request: ChatRequest, limit: int) -> ChatRequest:
    own = request.own
    if own is not None:
        own = replace(own, fields=_limited(own.fields, limit, _LIMIT_FIELD.get(own.api.name, TOKEN_LIMITS[0])))
    return replace(request, params=_limited(request.params, limit, TOKEN_LIMITS[0]), own=own)


def _limited(fields: Mapping[str, Any], limit: int, name: str) -> Mapping[str, Any]:
    """The fields, in which no limit is above ``limit``; it is called ``name`` where there is none."""
    present = [each for each in TOKEN_LIMITS if isinstance(fields.get(each), int)] or [name]
    lowered = {each: min(value, limit) if isinstance(value := fields.get(each), int) else limit for each in present}
    return {**fields, **lowered}
