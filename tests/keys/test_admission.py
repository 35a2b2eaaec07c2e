"""Requests on their way in and out, as one process counts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from ai_router.keys.admission import Admission
from ai_router.keys.errors import RateLimited
from ai_router.keys.ledger import Ledger, Renewal
from ai_router.shared.start import start_shared
from ai_router.virtual_key import KeyLimits, VirtualKey, new_id
from tests.fakes.valkey import RunningValkey

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def admission(valkey: RunningValkey) -> Iterator[Admission]:
    with ExitStack() as closing:
        shared = start_shared(valkey.url, closing)
        yield Admission(shared, lambda *_: {"day": 0.0, "month": 0.0}, None)  # type: ignore[arg-type]


def let_in(admission: Admission, key: VirtualKey, request_id: str) -> None:
    asking = admission.begin(key, request_id, 1, NOW)
    assert asking is not None
    asking.complete()


def test_one_that_ends_while_it_is_renewed_leaves_no_place_taken(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = VirtualKey(new_id(), "k", limits=KeyLimits(concurrency=1))
    let_in(admission, key, "first")
    renew = Ledger.renew

    def ended_meanwhile(self: Ledger, key_id: str, renewals: list[Renewal]) -> None:
        admission.ended("first")
        admission._release(key_id)
        renew(self, key_id, renewals)

    monkeypatch.setattr(Ledger, "renew", ended_meanwhile)
    admission._renew()
    let_in(admission, key, "second")


def test_the_second_is_refused_while_the_first_is_under_way(admission: Admission) -> None:
    key = VirtualKey(new_id(), "k", limits=KeyLimits(concurrency=1))
    let_in(admission, key, "first")
    with pytest.raises(RateLimited):
        let_in(admission, key, "second")
