"""Finding the ask: known wrappings are peeled off, the ask itself is left as it is, and nothing makes it slow."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.learning.dressing import read_dressings
from ai_router.learning.examples import read_examples
from ai_router.routing.ask import MAX_SEGMENTS, segments, unwrap
from ai_router.routing.prompt import text_of

DATASETS = Path(__file__).parents[2] / "datasets"
DRESSINGS = read_dressings(DATASETS / "test" / "dressings.toml")
PEELED = [
    *("double_quotes", "other_quotes", "fenced", "block_quote", "transcript", "transcript_other", "instruction"),
    *("task_block", "reminder_behind", "reminder_in_front", "environment_context", "unknown_block"),
    *("forwarded_mail", "rag_tags", "rag_context", "react"),
]
"""Families that are known by their shape. The others are for the head's model to tell."""
ASK = "how tall is the tower in Pisa, and why does it lean?"


@pytest.mark.parametrize("family", PEELED)
def test_a_known_wrapping_is_peeled_off_whole(family: str) -> None:
    rng = random.Random(4)
    for _ in DRESSINGS.families[family].templates * 3:
        assert unwrap(DRESSINGS.dress(ASK, family, rng).text) == ASK


@pytest.mark.parametrize("family", sorted(DRESSINGS.families))
def test_no_wrapping_costs_a_word_of_the_ask(family: str) -> None:
    dressed = DRESSINGS.dress(ASK, family, random.Random(1))
    start, end = dressed.ask
    assert dressed.text[start:end].strip() in unwrap(dressed.text)


def test_everyday_prompts_stay_as_they_are() -> None:
    prompts = [text_of(row.messages[-1]) for row in read_examples([DATASETS / "test" / "everyday.jsonl"])]
    assert [unwrap(prompt) for prompt in prompts] == [prompt.strip() for prompt in prompts]


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ('"prove that there are infinitely many primes"', "prove that there are infinitely many primes"),
        ('"what does "eventual consistency" mean?"', 'what does "eventual consistency" mean?'),
        ('"apples" or "pears"', '"apples" or "pears"'),
        ("translate 'what is the weather' into French", "translate 'what is the weather' into French"),
        ("what does <b>this</b> tag do", "what does <b>this</b> tag do"),
        ("fix this:\n<div class='x'>\n<p>hello</p>\n</div>", "fix this:"),
        ("<system-reminder>be brief</system-reminder>", "<system-reminder>be brief</system-reminder>"),
        ("Summarise this chat:\nUser: hi\nAssistant: hello", "Summarise this chat:\nUser: hi\nAssistant: hello"),
        ("User: hi\nAssistant: hello\nUser: and tomorrow?\nAssistant:", "and tomorrow?"),
        ("Anna wrote:\n> is it far?\n> on foot, I mean", "is it far?\non foot, I mean"),
        ("user\nhello there\nassistant", "hello there"),
        ("<task>\n</task>", "<task>\n</task>"),
        ("", ""),
        ("  \n ", ""),
    ],
)
def test_cases(text: str, ask: str) -> None:
    assert unwrap(text) == ask


@given(st.text(alphabet=st.sampled_from('<>/abQ:"\n-.* task user'), max_size=200))
def test_something_is_left_of_whatever_is_no_blank(text: str) -> None:
    assert bool(unwrap(text).strip()) == bool(text.strip())
    assert len(segments(text)) <= MAX_SEGMENTS


def test_segments_are_lines_and_sentences_and_what_stands_before_a_colon() -> None:
    text = "Please: is it far? I am tired (answer in German)\n```\na. b? c\n```\nthanks"
    assert segments(text) == [
        "Please:",
        "is it far?",
        "I am tired",
        "(answer in German)",
        "```\na. b? c\n```",
        "thanks",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<abc>" * 20_000,
        "<a b>" * 2_000 + "</a>" * 2_000,
        "x" + " " * 100_000 + "y",
        "#" * 100_000,
        '"' * 50_001,
        "user:" * 20_000,
        "user\n" * 20_000 + "assistant",
        "best\n" * 20_000,
        "- " * 50_000,
        "> " * 50_000,
        "from: x\n" * 10_000,
        "user\n" + "[INST]" * 10_000,
        "[INST]" * 10_000 + "[/INST]",
        "<abc " + "x" * 100_000,
        "(" * 50_000,
    ],
    ids=lambda text: text[:8],
)
def test_no_text_takes_it_long(text: str) -> None:
    """In processor time of this thread, ten times what the slowest takes on a slow machine."""
    unwrap("warm")
    started = time.thread_time()
    segments(unwrap(text))
    assert time.thread_time() - started < 0.5
