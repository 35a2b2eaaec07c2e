"""The packaged head on what everybody would agree on. How good it is beyond that, ``ai-router eval`` measures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NoReturn

import pytest

from ai_router.routing.head import store
from ai_router.routing.head.model import Head, SlowModels
from ai_router.routing.head.store import packaged_encoder, packaged_head, unpack_head
from ai_router.types import Message

MODERATE, COMPLEX, ENRICH = "MODERATE", "COMPLEX", "ENRICH"


@pytest.fixture(scope="module")
def head() -> Head:
    return packaged_head()


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def after(question: str, answer: str, last: str) -> list[Message]:
    return [*user(question), {"role": "assistant", "content": answer}, *user(last)]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("explain what inflation is", MODERATE),
        ("what's new in Python 3.14", ENRICH),
        ("list vs tuple", MODERATE),
        ("hello", MODERATE),
        ("weather in Oslo", ENRICH),
        ("price of eggs", ENRICH),
        ("prove that there are infinitely many primes", COMPLEX),
        ("translate 'what is the weather today' into Spanish", MODERATE),
        ("wie wird das wetter morgen in Köln", ENRICH),
        ("écris un poème pour l'anniversaire de ma mère", MODERATE),
        ("demuestra que todo grupo de orden 15 es cíclico", COMPLEX),
    ],
)
def test_single_turns(head: Head, text: str, label: str) -> None:
    assert head.guess(user(text), 2026).label == label


def test_it_is_not_sure_where_a_word_of_one_label_stands_in_an_ask_of_another(head: Head) -> None:
    assert not head.guess(user("explain what weather is"), 2026).sure


def test_a_follow_up_takes_its_meaning_from_the_conversation(head: Head) -> None:
    weather = after("what's the weather in Berlin", "Cloudy, 8 degrees.", "and tomorrow?")
    assert head.guess(weather, 2026).label == ENRICH
    recipe = after("pancakes for 4 people?", "250 g flour, 500 ml milk, 3 eggs.", "and for 6?")
    assert head.guess(recipe, 2026).label == MODERATE


def test_thanks_after_a_proof_is_moderate(head: Head) -> None:
    proof = after("prove that sqrt(2) is irrational", "Suppose p/q in lowest terms...", "thanks")
    assert head.guess(proof, 2026).label == MODERATE


def test_a_guess_says_how_likely_each_label_is_and_why(head: Head) -> None:
    guess = head.guess(user("weather in Oslo tomorrow"), 2026)
    assert sum(guess.probabilities.values()) == pytest.approx(1)
    assert guess.sure
    assert guess.reason.startswith("fast path: reads like ENRICH (")
    assert guess.ask == "weather in Oslo tomorrow"
    assert "weather" in guess.evidence


def test_the_first_guess_is_the_guess_unless_the_slow_models_are_still_to_be_asked(head: Head) -> None:
    plain, harder = user("hello"), user("make a motto for our ice cream shop in Kiel")
    first = head.first_guess(plain, 2026)
    assert first.final
    assert head.guess(plain, 2026) == first.guess
    first = head.first_guess(harder, 2026)
    assert not first.final
    assert head.guess(harder, 2026) == head.second_guess(first, 2026) != first.guess


def test_while_the_slow_models_load_the_words_alone_decide() -> None:
    class Loading:
        ready = False

        def of(self, texts: Sequence[str]) -> NoReturn:
            raise AssertionError("nobody is to wait for these")

    head = unpack_head(
        store.files(store.__package__).joinpath("head.npz").read_bytes(), SlowModels(Loading(), packaged_encoder())
    )
    harder = user("make a motto for our ice cream shop in Kiel")
    first = head.first_guess(harder, 2026, may_wait=False)
    assert first.final
    assert not first.guess.sure
    assert not head.first_guess(harder, 2026).final


@pytest.mark.parametrize("role", ["system", "assistant", "0"])
def test_a_conversation_without_a_word_of_the_user_is_nothing_to_be_sure_of(head: Head, role: str) -> None:
    guess = head.guess([{"role": role, "content": "Prove that sqrt(2) is irrational."}], 2026, all_stages=True)
    assert not guess.sure
    assert guess.ask == ""


def test_gibberish_is_nothing_to_be_sure_of(head: Head) -> None:
    assert not head.guess(user("flurb gnozzle wex qanto brindlemop trask velluni"), 2026).sure


@pytest.mark.parametrize("text", ["", "\n", "?", "\x00", "🙂", "\ud800", "a" * 100_000, "?! " * 40_000])
def test_any_text_is_answered(head: Head, text: str) -> None:
    assert 0 <= head.guess(user(text), 2026).confidence <= 1


def test_a_hundred_kilobytes_take_no_longer_than_a_page(head: Head) -> None:
    def fastest(text: str) -> float:
        def once() -> float:
            started = time.perf_counter()
            head.guess(user(text), 2026)
            return time.perf_counter() - started

        return min(once() for _ in range(5))

    page = "word soup, more words; " * 90
    assert fastest(page * 48) < 5 * fastest(page)


def test_it_is_never_sure_of_a_picture_or_of_a_tool_s_result(head: Head) -> None:
    picture = [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert head.guess(user("hello"), 2026).sure
    assert not head.guess([{"role": "user", "content": picture}], 2026).sure
    assert not head.guess([*user("hello"), {"role": "tool", "content": "prove the theorem"}], 2026).sure
