"""Reading what backends tell of usage, each in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.types import Usage

_TICKS_PER_USD = 10_000_000_000
_MOST = 1e18
_MOST_TOKENS = 10**12
"""More is nonsense, and sums of it would not fit into any column."""


def usage_of(usage: Mapping[str, Any] | None) -> Usage | None:
    """The tokens of a ``usage`` object of chat completions or of the Responses API; None without one.

    xAI leaves the tokens of reasoning out of completion_tokens and counts them in total_tokens (upstreams, 2026-11-21):
    what the total has beyond the prompt is output.
    """
    if not usage:
        return None
    get = usage.get
    prompt = _count(get("prompt_tokens", get("input_tokens")))
    output = _count(get("completion_tokens", get("output_tokens")))
    of_prompt = get("prompt_tokens_details", get("input_tokens_details"))
    of_output = get("completion_tokens_details", get("output_tokens_details"))
    return Usage(
        input=prompt,
        output=max(output, _count(get("total_tokens")) - prompt),
        cached=min(prompt, _count(of_prompt.get("cached_tokens"))) if isinstance(of_prompt, dict) else 0,
        reasoning=_count(of_output.get("reasoning_tokens")) if isinstance(of_output, dict) else 0,
        estimated=get("estimated") is True,
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
    """A number that can be one; None for all else."""
    usable = type(value) in (int, float) and 0 <= value <= _MOST
    return float(value) if usable else None


def _count(value: Any) -> int:
    """A number of tokens; 0 for none, or for nonsense."""
    return min(int(_amount(value) or 0), _MOST_TOKENS)
