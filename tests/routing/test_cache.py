"""The decision cache: what is the same, for how long, and how much of it."""

from __future__ import annotations

import pytest

from ai_router.routing.cache import DecisionCache, cache_key
from ai_router.types import DecidedBy, Decision, Label, route_of
from tests.chat_requests import chat_request


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def decided(label: Label) -> Decision:
    return Decision(label, route_of(label), DecidedBy.CLASSIFIER, f"classifier: {label}", 0.9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_blanks_and_case_do_not_make_a_question_another() -> None:
    assert cache_key(chat_request("What  is\nthis?"), 500) == cache_key(chat_request("what is this? "), 500)


def test_another_word_or_another_context_does() -> None:
    before = [{"role": "user", "content": "weather in Oslo"}, {"role": "assistant", "content": "Rain."}]
    alone = cache_key(chat_request("and tomorrow?"), 500)
    assert cache_key(chat_request("and today?"), 500) != alone
    assert cache_key(chat_request("and tomorrow?", client="key-12345678"), 500) != alone, "another's is not told"
    assert cache_key(chat_request(messages=[*before, {"role": "user", "content": "and tomorrow?"}]), 500) != alone


def test_a_decision_is_kept_for_its_time(clock: Clock) -> None:
    cache = DecisionCache(10, ttl_s=3600, clock=clock)
    cache.put(b"k", decided(Label.COMPLEX))
    clock.now = 3599
    assert cache.get(b"k") == decided(Label.COMPLEX)
    clock.now = 3600
    assert cache.get(b"k") is None
    assert len(cache) == 0


def test_enrich_is_kept_for_a_minute_at_most(clock: Clock) -> None:
    cache = DecisionCache(10, ttl_s=3600, clock=clock)
    cache.put(b"k", decided(Label.ENRICH))
    clock.now = 59.9
    assert cache.get(b"k") is not None
    clock.now = 60
    assert cache.get(b"k") is None


def test_enrich_is_kept_no_longer_than_the_others(clock: Clock) -> None:
    cache = DecisionCache(10, ttl_s=5, clock=clock)
    cache.put(b"k", decided(Label.ENRICH))
    clock.now = 5
    assert cache.get(b"k") is None


def test_the_one_asked_for_longest_ago_goes_first(clock: Clock) -> None:
    cache = DecisionCache(2, ttl_s=60, clock=clock)
    for key in (b"a", b"b"):
        cache.put(key, decided(Label.MODERATE))
    cache.get(b"a")
    cache.put(b"c", decided(Label.MODERATE))
    assert [key for key in (b"a", b"b", b"c") if cache.get(key)] == [b"a", b"c"]
