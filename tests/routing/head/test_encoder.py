"""Word pieces as BERT's own tokeniser makes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.head.encoder import WordPieceTokenizer

VOCABULARY = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY += ["what", "'", "s", "new", "##er", "cafe", "strasse", "!", "日", "本", "un", "##known", "##s"]


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(VOCABULARY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's NEW!", ["what", "'", "s", "new", "!"]),
        ("newer", ["new", "##er"]),
        ("Café", ["cafe"]),
        ("unknowns", ["un", "##known", "##s"]),
        ("日本", ["日", "本"]),
        ("whatzz", ["[UNK]"]),
        ("new" * 40, ["[UNK]"]),
        (" \t\n", []),
        ("new\u200bs", ["new", "##s"]),
        ("new\x00er", ["new", "##er"]),
    ],
)
def test_pieces(tokenizer: WordPieceTokenizer, text: str, expected: list[str]) -> None:
    assert [VOCABULARY[token_id] for token_id in tokenizer.token_ids(text, 100)] == expected


def test_reading_stops_at_the_limit(tokenizer: WordPieceTokenizer) -> None:
    assert len(tokenizer.token_ids("new " * 100_000, 5)) == 5


@given(st.text(max_size=300))
def test_any_text_is_cut_into_known_numbers(tokenizer: WordPieceTokenizer, text: str) -> None:
    assert all(0 <= token_id < len(VOCABULARY) for token_id in tokenizer.token_ids(text, 1000))
