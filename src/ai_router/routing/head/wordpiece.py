"""Text into BERT's word pieces (uncased), as the encoder was trained on them.

By hand, since the library for it brings fifteen packages along; the test compares with pieces that it made.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

_UNKNOWN, CLS, SEP = 100, 101, 102
_LONGEST_WORD = 100


class WordPieces:
    """A vocabulary: token -> number, pieces inside a word begin with ``##``."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._numbers: Mapping[str, int] = {token: number for number, token in enumerate(tokens)}

    def numbers(self, text: str, limit: int) -> list[int]:
        """The pieces of ``text``, at least ``limit`` of them if there are so many; reading stops soon after."""
        numbers: list[int] = []
        for word in _words(text):
            numbers += self._pieces(word)
            if len(numbers) >= limit:
                break
        return numbers

    def _pieces(self, word: str) -> list[int]:
        """Greedily the longest piece each time; a word with a part that is in no vocabulary is unknown."""
        if len(word) > _LONGEST_WORD:
            return [_UNKNOWN]
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._numbers.get(prefix + word[start:end])
                if number is not None:
                    break
            else:
                return [_UNKNOWN]
            pieces.append(number)
            start = end
        return pieces


def _words(text: str) -> Iterator[str]:
    """Lower-case words without accents; signs and Chinese characters are words of their own."""
    word = ""
    for sign in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(sign)
        if category == "Mn" or (category[0] == "C" and not sign.isspace()):
            continue
        alone = _is_sign(sign, category) or _is_ideograph(sign)
        if (sign.isspace() or alone) and word:
            yield word
            word = ""
        if alone:
            yield sign
        elif not sign.isspace():
            word += sign
    if word:
        yield word


def _is_sign(sign: str, category: str) -> bool:
    """Punctuation, and what ASCII has besides letters and digits."""
    return category[0] == "P" or (sign < "\x7f" and not sign.isalnum() and not sign.isspace())


def _is_ideograph(sign: str) -> bool:
    code = ord(sign)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FA1F
    )
