"""What a request used and what it cost.

A call of a cloud costs what the provider says that it charged, else its tokens at the catalogue's price, else at the
price in the package genai-prices; else the cost is unknown. A local backend costs seconds of its GPU, and money if a
price of electricity is set. An unknown cost never counts as 0: ``Cost.unknown`` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ai_router.providers.catalogue import PRIMARY, Catalogue, Price
from ai_router.providers.registry import Backend, Registry
from ai_router.types import CallCost, Cost, Outcome, Traffic, Usage

_PER_TOKEN = 1e-6
_TICKS_PER_USD = 10_000_000_000
"""xAI's unit of ``cost_in_usd_ticks``."""
_MAX_NUMBER = 1e18
_MAX_TOKENS = 10**12
"""A larger number of tokens is an error of the backend, and sums of it would not fit the database's columns."""

PROVIDER, CATALOGUE, GENAI_PRICES = "provider", "catalogue", "genai-prices"
ELECTRICITY, LOCAL, NONE = "electricity", "local", "none"

PriceAndBasis = tuple[float, str]
"""USD, and where the figure comes from: one of the names above."""

CallUsd = Callable[[Traffic, Usage | None, datetime], float | None]
"""What a call with this usage cost at that time, in USD; None: nobody knows."""

PublicPrice = Callable[[Backend, str, Usage, datetime], float | None]
"""The price in USD of a backend's model for a usage at a time; None if unknown."""


def price_of(usage: Usage, price: Price) -> float:
    """USD for the tokens at a price of the catalogue's. Above its limit, what a cache saves or costs rises as the other
    input does."""
    above = price.above is not None and usage.input > price.above
    uncached = price.input_above if above and price.input_above is not None else price.input
    output = price.output_above if above and price.output_above is not None else price.output
    rise = uncached / price.input if price.input else 1.0
    of_cache = (
        (usage.cached, price.cached),
        (usage.cache_written, price.cache_write),
        (usage.cache_written_hour, price.cache_write_hour),
    )
    plain = usage.input - sum(tokens for tokens, _ in of_cache)
    cache = sum(tokens * (uncached if usd is None else usd * rise) for tokens, usd in of_cache)
    return _PER_TOKEN * (plain * uncached + cache + usage.output * output)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What answers are compared with: the model that would have answered all without a local one, and its price.

    ``model`` is ``provider/model``; ``price`` None: the catalogue has none.
    """

    model: str
    price: Price | None


def baseline_of(catalogue: Catalogue, xai_model: str) -> Baseline | None:
    """The first cloud in the chain of COMPLEX, whether it has a key or not; None if there is none.

    ``xai_model`` is the setting XAI_MODEL.
    """
    entry = next((entry for entry in catalogue.chains.get("complex", ()) if entry != PRIMARY), None)
    if entry is None:
        return None
    name, _, model = entry.partition("/")
    provider = catalogue.providers[name]
    chosen = model or (xai_model if name == "xai" else provider.default_model or "")
    facts = provider.models.get(chosen)
    return Baseline(f"{name}/{chosen}", None if facts is None else facts.price)


class Pricing:
    """Works out what requests cost.

    ``usd_per_gpu_s``: the electricity for a second of a local backend's work; None if no price is set.
    ``public_price``: prices for models that the catalogue has no price for; None: those of genai-prices.
    """

    def __init__(
        self,
        registry: Registry,
        baseline: Baseline | None,
        usd_per_gpu_s: float | None,
        public_price: PublicPrice | None = None,
    ) -> None:
        self._registry = registry
        self._backends: Mapping[str, Backend] = {}
        self._local: frozenset[str] = frozenset()
        self._free: frozenset[str] = frozenset()
        """Search engines that charge nothing, whatever becomes of a call."""
        self.refresh()
        self.baseline = baseline
        self._usd_per_gpu_s = usd_per_gpu_s
        self._public_price = public_price or genai_price

    def refresh(self) -> None:
        """Look again at which backends there are."""
        backends = self._registry.backends()
        # What is gone may still have answered a request that has not been priced yet.
        self._backends = {**self._backends, **{backend.name: backend for backend in backends}}
        self._local |= frozenset(backend.name for backend in backends if backend.local)
        free = (searcher for searcher in self._registry.searchers if searcher.search.max_usd == 0)
        self._free |= frozenset(searcher.backend.name for searcher in free)

    def is_local(self, backend: str) -> bool:
        """Whether a backend, by its name, runs on the operator's own machines."""
        return backend in self._local

    def cost(self, outcome: Outcome) -> Cost:
        """The cost of all calls that were made for a request."""
        known, gpu_s, local_used = 0.0, 0.0, False
        unknown, by_call, basis = list[str](), dict[int, CallCost](), dict[str, None]()
        for call in outcome.traffic:
            if self.is_local(call.backend):
                gpu_s += call.used_s
                local_used = True
                continue
            charge = self._charge(call, outcome)
            known += charge.usd or 0.0
            unknown += charge.unknown
            if charge.basis is not None:
                basis[charge.basis] = None
            if charge.usage is not None:
                by_call[call.call_number] = CallCost(charge.usage, charge.usd)
        if local_used:
            known += gpu_s * (self._usd_per_gpu_s or 0.0)
            basis[LOCAL if self._usd_per_gpu_s is None else ELECTRICITY] = None
        usage = usage_of(outcome.usage) if outcome.attempts else None
        bases = tuple(basis) or (() if unknown else (NONE,))
        return Cost(known, bases, tuple(unknown), gpu_s, usage, by_call, self._baseline_usd(usage))

    def call_usd(self, call: Traffic, usage: Usage | None, when: datetime) -> float | None:
        """What one call cost, given its usage; None: nobody knows. One that cannot have cost anything costs 0."""
        if self.is_local(call.backend) or (usage is None and not call.may_cost):
            return 0.0
        if usage is None:
            return None
        # OpenRouter says 0 where it asks with the owner's key at somebody else's: that one charges.
        told = replace(usage, charged_usd=None) if usage.charged_usd == 0 else usage
        price = self._price(call, told, when) or self._price(call, usage, when)
        return None if price is None else price[0]

    def _charge(self, call: Traffic, outcome: Outcome) -> _Charge:
        """What one call of a cloud cost, and in words what is not known of that."""
        call_name = f"{call.backend} ({call.model})"
        answers = bool(outcome.attempts) and outcome.attempts[-1].call_number == call.call_number
        search_call, search_usage = outcome.search or (None, None)
        searches = search_call == call.call_number
        usage = usage_of(outcome.usage if answers else search_usage if searches else None)
        if usage is None:
            # A refusal is not charged. A call that broke off, or that we gave up, may have been.
            may_cost = call.may_cost and call.backend not in self._free
            return _Charge(unknown=(f"{call_name}: a call without a word of its usage",) if may_cost else ())
        usd, basis = self._price(call, usage, outcome.request.timestamp) or (None, None)
        if usd is None:
            return _Charge(usage=usage, unknown=(f"{call_name}: no price known",))
        unknown = []
        if searches and basis != PROVIDER:
            unknown.append(f"{call_name}: what it charges for searching")
        if call.abandoned and usage.estimated:
            unknown.append(f"{call_name}: what it wrote after the client had left, or thought before")
        return _Charge(usd, basis, usage, tuple(unknown))

    def _price(self, call: Traffic, usage: Usage, when: datetime) -> PriceAndBasis | None:
        if usage.charged_usd is not None:
            return usage.charged_usd, PROVIDER
        backend = self._backends.get(call.backend)
        if backend is None:
            return None
        price = backend.facts(call.model).price
        if price is not None:
            return price_of(usage, price), CATALOGUE
        public = self._public_price(backend, call.model, usage, when)
        return None if public is None else (public, GENAI_PRICES)

    def _baseline_usd(self, usage: Usage | None) -> float | None:
        if usage is None or self.baseline is None or self.baseline.price is None:
            return None
        return price_of(usage, self.baseline.price)


@dataclass(frozen=True, slots=True)
class _Charge:
    usd: float | None = None
    basis: str | None = None
    usage: Usage | None = None
    unknown: tuple[str, ...] = ()


def genai_price(backend: Backend, model: str, usage: Usage, when: datetime) -> float | None:
    """USD at the price in genai-prices at the time ``when``; None if it does not know the address or the model."""
    # Loading it takes 27 MiB and a third of a second, which only a model without a price in the catalogue needs.
    from genai_prices import Usage as PublicUsage  # noqa: PLC0415 - see above
    from genai_prices import calc_price  # noqa: PLC0415 - see above

    tokens = PublicUsage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cached or None,
        cache_write_tokens=usage.cache_written + usage.cache_written_hour or None,
    )
    try:
        public_price = calc_price(tokens, model, provider_api_url=backend.url(""), genai_request_timestamp=when)
    except LookupError:
        return None
    return float(public_price.total_price)


def usage_of(usage: Mapping[str, Any] | None) -> Usage | None:
    """The tokens in a ``usage`` object of chat completions or of the Responses API; None without one.

    A number that cannot be one counts as 0. xAI leaves the reasoning out of completion_tokens and has it in
    total_tokens (seen 2026-11-21), so that everything in the total beyond the prompt is output.
    """
    if not usage:
        return None
    get = usage.get
    prompt = _token_count(get("prompt_tokens", get("input_tokens")))
    output = _token_count(get("completion_tokens", get("output_tokens")))
    of_prompt = get("prompt_tokens_details", get("input_tokens_details"))
    of_output = get("completion_tokens_details", get("output_tokens_details"))
    details = of_prompt if isinstance(of_prompt, dict) else {}
    cached = min(prompt, _token_count(details.get("cached_tokens")))
    written = min(prompt - cached, _token_count(details.get("cache_creation_tokens")))
    for_an_hour = min(written, _token_count(details.get("cache_creation_hour_tokens")))
    return Usage(
        input=prompt,
        output=max(output, _token_count(get("total_tokens")) - prompt),
        cached=cached,
        cache_written=written - for_an_hour,
        cache_written_hour=for_an_hour,
        reasoning=_token_count(of_output.get("reasoning_tokens")) if isinstance(of_output, dict) else 0,
        estimated=get("estimated") is True,
        charged_usd=charged_usd(usage),
    )


def charged_usd(usage: Mapping[str, Any]) -> float | None:
    """What the provider says that it charged, in USD; None if it does not say.

    xAI: ``cost_in_usd_ticks`` / 1e10. OpenRouter: ``cost``. Perplexity: ``cost.total_cost``.
    """
    ticks, cost = _valid_number(usage.get("cost_in_usd_ticks")), usage.get("cost")
    if ticks is not None:
        return ticks / _TICKS_PER_USD
    return _valid_number(cost.get("total_cost") if isinstance(cost, Mapping) else cost)


def _valid_number(value: Any) -> float | None:
    """The number if it is finite, not negative and not absurdly large; None for anything else, booleans included."""
    usable = type(value) in (int, float) and 0 <= value <= _MAX_NUMBER
    return float(value) if usable else None


def _token_count(value: Any) -> int:
    """A number of tokens; 0 for a missing or impossible one."""
    return min(int(_valid_number(value) or 0), _MAX_TOKENS)
