"""Reading what backends tell of usage, each in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.exchange import Usage

_TICKS_PER_USD = 10_000_000_000


def usage_of(usage: Mapping[str, Any] | None) -> Usage | None:
    """The tokens of a ``usage`` object of chat completions or of the Responses API; None without one.

    xAI leaves the tokens of reasoning out of completion_tokens and counts them in total_tokens (upstreams, 2026-11-21):
    what the total has beyond the prompt is output.
    """
    if not usage:
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    output = _count(usage, "completion_tokens", "output_tokens")
    details_in = _details(usage, "prompt_tokens_details", "input_tokens_details")
    details_out = _details(usage, "completion_tokens_details", "output_tokens_details")
    return Usage(
        input=prompt,
        output=max(output, _count(usage, "total_tokens") - prompt),
        cached=min(prompt, _count(details_in, "cached_tokens")),
        reasoning=_count(details_out, "reasoning_tokens"),
        estimated=usage.get("estimated") is True,
        told_usd=told_usd(usage),
    )


def told_usd(usage: Mapping[str, Any]) -> float | None:
    """What the provider says it charged, in USD: xAI's ``cost_in_usd_ticks`` / 1e10, OpenRouter's ``cost``,
    Perplexity's ``cost.total_cost``. None where it does not say."""
    ticks, cost = _amount(usage.get("cost_in_usd_ticks")), usage.get("cost")
    if ticks is not None:
        return ticks / _TICKS_PER_USD
    return _amount(cost.get("total_cost") if isinstance(cost, Mapping) else cost)


def _amount(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
    return float(value) if usable else None


def _count(usage: Mapping[str, Any], *names: str) -> int:
    """The first of these that is there; 0 for none, or for nonsense."""
    value = next((usage[name] for name in names if usage.get(name) is not None), 0)
    return int(_amount(value) or 0)


def _details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((found for name in names if isinstance(found := usage.get(name), Mapping)), {})
