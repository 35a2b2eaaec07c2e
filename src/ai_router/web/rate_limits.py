"""The limits of a virtual key on endpoints that the pipeline does not see, and the headers that tell what is left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil

from flask import g

from ai_router.keys.admission import Admission, RateState
from ai_router.web.requests import Ids
from ai_router.web.responses import on_response_closed

Admit = Callable[[int], None]
"""Lets the present request in, which has about so many tokens. Raises RateLimited and BudgetUnavailable."""


def admits_with(admission: Admission, ids: Ids) -> Admit:
    """What lets a request in that costs nothing, and counts until its response has closed."""

    def admit(tokens: int) -> None:
        session_id = ids.session_id()
        asking = admission.begin(g.key, session_id, tokens, datetime.now(UTC))
        if asking is None:
            return
        on_response_closed().callback(admission.forget, session_id)
        try:
            asking.complete()
        finally:
            g.rates = asking.rates

    return admit


def rate_headers(rates: RateState) -> dict[str, str]:
    """``x-ratelimit-...`` for requests and tokens, as far as they are limited."""
    headers = {}
    for what, state in (("requests", rates.requests), ("tokens", rates.tokens)):
        if state is not None:
            limit, left, reset_s = state
            headers[f"x-ratelimit-limit-{what}"] = str(limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(left)
            headers[f"x-ratelimit-reset-{what}"] = f"{ceil(reset_s)}s"
    return headers
