"""What keys have used and reserved, in Redis: one script for each step, so that each is atomic over all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from ai_router.shared.client import SharedClient
from ai_router.shared.values import PREFIX
from ai_router.virtual_key import KeyLimits

LEASE_S = 30.0
"""For how long a request counts without a word of its process."""
_DAY_S = 2 * 86_400
_MONTH_S = 33 * 86_400
_PER_USD = 1_000_000_000
PERIODS = ("day", "month")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer to one request. ``limit``: which one keeps it out; empty: none. ``wait_s``: when it may work, in
    seconds; 0: not known. ``requests`` and ``tokens``: used in the last minute; ``..._reset_s``: until there is more.
    """

    limit: str
    wait_s: float
    requests: int
    requests_reset_s: float
    tokens: int
    tokens_reset_s: float


@dataclass(frozen=True, slots=True)
class Renewal:
    """A request that is still under way. ``running``: it counts for the key's concurrency; ``usd``: its reservation;
    None: it has none."""

    id: str
    running: bool
    usd: float | None


class Ledger:
    """The scripts. Every method raises SharedUnavailable. Amounts are in USD. Safe from any thread."""

    def __init__(self, client: SharedClient) -> None:
        self._client = client

    def admit(
        self, key_id: str, limits: KeyLimits, session_id: str, tokens: int, ended: Sequence[str], names: Sequence[str]
    ) -> tuple[Admitted, Sequence[bytes | None]]:
        """Count a request that is taken to have so many tokens, unless a limit keeps it out; and look up the values of
        ``names``. ``ended``: requests of the key that are no longer under way."""
        own = [_name(key_id, what) for what in ("requests", "tokens", "running")]
        maxima = (limits.requests_per_minute or 0, limits.tokens_per_minute or 0, limits.concurrency or 0)
        limit, wait_ms, requests, requests_ms, used, tokens_ms, values = self._client.run(
            _script("admit"),
            [*own, *(PREFIX + name for name in names)],
            [session_id, *maxima, tokens, int(LEASE_S * 1000), *ended],
        )
        admitted = Admitted(limit.decode(), wait_ms / 1000, requests, requests_ms / 1000, used, tokens_ms / 1000)
        # Lua ends a list at its last value.
        return admitted, [*values, *[None] * (len(names) - len(values))]

    def reserve(self, key_id: str, limits: KeyLimits, session_id: str, usd: float, when: datetime) -> str:
        """Reserve so much of the budgets. Returns "" if that worked, the period whose budget does not suffice, or
        "unknown" if ``start_count`` has to come first."""
        budgets = [-1 if usd is None else _nano(usd) for usd in (limits.daily_usd, limits.monthly_usd)]
        names = [*_spent_names(key_id, when), _name(key_id, "reserved"), _name(key_id, "reserved_until")]
        answer: bytes = self._client.run(
            _script("reserve"), names, [session_id, _nano(usd), *budgets, int(LEASE_S * 1000)]
        )
        return answer.decode()

    def start_count(self, key_id: str, spent: Mapping[str, float], when: datetime) -> None:
        """Begin to count with what was ``spent`` in each of PERIODS, unless another process has just done so."""
        day, month = _spent_names(key_id, when)

        def begin(redis: object) -> None:
            redis.set(day, _nano(spent["day"]), nx=True, ex=_DAY_S)  # type: ignore[attr-defined]
            redis.set(month, _nano(spent["month"]), nx=True, ex=_MONTH_S)  # type: ignore[attr-defined]

        self._client.call(begin)

    def settle(self, key_id: str, session_id: str, usd: float | None, tokens: int, when: datetime) -> None:
        """Put the bill of a request in the place of its reservation; None: it cost all of that. ``tokens``: how many
        more it had than it was taken to have."""
        names = [_name(key_id, "reserved"), _name(key_id, "reserved_until"), _name(key_id, "tokens")]
        bill = "" if usd is None else _nano(usd)
        self._client.run(_script("settle"), [*_spent_names(key_id, when), *names], [session_id, bill, tokens])

    def renew(self, key_id: str, renewals: Sequence[Renewal]) -> None:
        """These requests are still under way."""
        names = [_name(key_id, what) for what in ("running", "reserved", "reserved_until")]
        told: list[str | int] = []
        for one in renewals:
            told += [one.id, int(one.running), "" if one.usd is None else _nano(one.usd)]
        self._client.run(_script("renew"), names, [int(LEASE_S * 1000), *told])

    def release(self, key_id: str, ended: Sequence[str]) -> None:
        """These requests are no longer under way."""
        self._client.call(lambda redis: redis.zrem(_name(key_id, "running"), *ended))


def _name(key_id: str, what: str) -> str:
    return f"{PREFIX}key:{key_id}:{what}"


def _spent_names(key_id: str, when: datetime) -> list[str]:
    """Of the periods that a moment in UTC is in."""
    return [_name(key_id, f"spent:{when:%Y-%m-%d}"), _name(key_id, f"spent:{when:%Y-%m}")]


def _nano(usd: float) -> int:
    """Billionths of a dollar: whole numbers, so that sums are exact."""
    return round(usd * _PER_USD)


@cache
def _script(name: str) -> str:
    return files("ai_router.keys").joinpath(f"{name}.lua").read_text("utf-8")
