"""Word pieces as BERT's own tokeniser makes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.head.encoder import WordPieces

VOCABULARY = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY += ["what", "'", "s", "new", "##er", "cafe", "strasse", "!", "日", "本", "un", "##known", "##s"]


@pytest.fixture(scope="module")
def pieces() -> WordPieces:
    return WordPieces(VOCABULARY)


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
def test_pieces(pieces: WordPieces, text: str, expected: list[str]) -> None:
    assert [VOCABULARY[number] for number in pieces.numbers(text, 100)] == expected


def test_reading_stops_at_the_limit(pieces: WordPieces) -> None:
    assert len(pieces.numbers("new " * 100_000, 5)) == 5


@given(st.text(max_size=300))
def test_any_text_is_cut_into_known_numbers(pieces: WordPieces, text: str) -> None:
    assert all(0 <= number < len(VOCABULARY) for number in pieces.numbers(text, 1000))
