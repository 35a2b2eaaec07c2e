"""What a judge is asked, what its word means, and what many of them add up to."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.judging.comparing import (
    ANSWER_BYTES,
    Judgement,
    Winner,
    contradict,
    judge_messages,
    preference_in,
    win_rates,
    winner_of,
)

ASKED = [{"role": "user", "content": "what is 2 + 2?"}]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("A", "A"),
        ("**B**", "B"),
        ("tie.", "TIE"),
        ("Answer: B", "B"),
        ("Final verdict: A", "A"),
        ("A is short but right. B rambles.\n\nA", "A"),
        ("B\n\nThe second one cites its source.", "B"),
        ("<think>A? No.\nA\n</think>\nB", "B"),
        ("<think>A", None),
        ("Both answers are good", None),
        ("A or B", None),
        ("Answer A:\nis short.\nAnswer B:\nis long.\nVerdict: B is better", None),
        ("**Answer A**\n\nIt is right.\n\n**Answer B**\n\nIt rambles and so", None),
        ("A:\n- good\nB:\n- bad\nVerdict: neither", None),
        ("Both are right.\nFinal answer is B", "B"),
        ("$\\boxed{A}$", "A"),
        ("A\nis better than B, I think", None),
        ("", None),
    ],
)
def test_the_word_is_alone_on_its_line(answer: str, word: str | None) -> None:
    assert preference_in(answer) == word


@pytest.mark.parametrize(
    ("local_first", "cloud_first", "winner"),
    [
        ("A", "B", Winner.LOCAL),
        ("B", "A", Winner.CLOUD),
        ("TIE", "TIE", Winner.TIE),
        ("A", "A", Winner.TIE),
        ("B", "B", Winner.TIE),
        ("A", "TIE", Winner.TIE),
        (None, "A", Winner.NONE),
        ("A", None, Winner.NONE),
    ],
)
def test_who_wins_has_won_in_both_orders(local_first: str | None, cloud_first: str | None, winner: Winner) -> None:
    assert winner_of(local_first, cloud_first) is winner


@pytest.mark.parametrize(
    ("words", "contradicts"),
    [(("A", "A"), True), (("B", "B"), True), (("A", "B"), False), (("A", "TIE"), False), (("TIE", "TIE"), False)],
)
def test_the_same_letter_twice_is_another_answer(words: tuple[str, str], *, contradicts: bool) -> None:
    assert contradict(*words) is contradicts


def test_the_judge_is_not_told_who_wrote_what() -> None:
    system, question = judge_messages(ASKED, "four", "4")
    assert orjson.loads(question["content"]) == {
        "request": "user: what is 2 + 2?",
        "answer_a": "four",
        "answer_b": "4",
    }
    assert not any(name in system["content"].lower() for name in ("local", "cloud", "grok", "primary"))


@given(st.text(max_size=300).map(lambda text: text * 60))
def test_an_answer_is_cut_in_its_middle_to_what_was_reserved(answer: str) -> None:
    shown = orjson.loads(judge_messages(ASKED, answer, "")[1]["content"])["answer_a"]
    assert len(orjson.dumps(orjson.dumps(shown).decode())) <= ANSWER_BYTES
    assert shown == answer or (shown.startswith(answer[:100]) and shown.endswith(answer[-100:]))


def test_a_tie_counts_half_and_what_was_not_compared_does_not_count() -> None:
    judged = [
        *[Judgement("primary", Winner.LOCAL)] * 6,
        *[Judgement("primary", Winner.TIE, contradicted=True)] * 2,
        *[Judgement("primary", Winner.CLOUD)] * 2,
        Judgement("primary", Winner.NONE),
        Judgement("code", Winner.NONE),
    ]
    rates = win_rates(judged)
    found = rates["primary"]
    assert (found.compared, found.won_by_local, found.ties, found.won_by_cloud, found.contradicted) == (10, 6, 2, 2, 2)
    assert (found.rate, found.without_verdict) == (0.7, 1)
    assert (rates["code"].rate, rates["code"].interval) == (None, None)


def test_the_interval_is_wilsons() -> None:
    # 8 of 10: 0.49 to 0.943 (Newcombe, Statistics in Medicine 17, 1998, method 3).
    rates = win_rates([*[Judgement("primary", Winner.LOCAL)] * 8, *[Judgement("primary", Winner.CLOUD)] * 2])
    assert rates["primary"].interval == pytest.approx((0.490, 0.943), abs=0.001)
