"""A small transformer that turns a request into three logits: the first layers of all-MiniLM-L6-v2, fine-tuned.

Written out in numpy because that is all it needs: a few layers over at most WIDTH pieces, one text at a time. How it
was made: learning/encoder_training.py. Architecture and names: BERT (Devlin et al. 2018), as in sentence-transformers'
all-MiniLM-L6-v2 (Apache-2.0), whose weights it started from.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.head.features import View

WIDTH = 32
HEADS = 12
_LAST_HEAD, _LAST_TAIL, _BEFORE = 16, 8, 11
_EPSILON = 1e-12
_UNKNOWN, CLS, SEP = 100, 101, 102
_LONGEST_WORD = 100

Array = npt.NDArray[np.float32]
Dense = tuple[Array, Array]


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


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the encoder reads: piece numbers, and for each whether it belongs to the turn before (0) or the last (1)."""

    numbers: list[int]
    kinds: list[int]


def pieces_of(view: View, vocabulary: WordPieces) -> Pieces:
    """The last turn, its middle left out where it is long; where it is short, the turn before goes in front of it."""
    last = vocabulary.numbers(view.last, 1 << 30)
    if len(last) > _LAST_HEAD + _LAST_TAIL:
        last = last[:_LAST_HEAD] + last[-_LAST_TAIL:]
    if len(view.turns) < 2 or len(last) > _LAST_HEAD:
        numbers = [CLS, *last, SEP]
        return Pieces(numbers, [0] * len(numbers))
    before = vocabulary.numbers(view.turns[1], _BEFORE)[:_BEFORE]
    return Pieces(
        [CLS, *before, SEP, *last, SEP][:WIDTH],
        ([0] * (len(before) + 2) + [1] * (len(last) + 1))[:WIDTH],
    )


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer; dense layers as (weights (in, out), bias), norms as (scale, shift)."""

    attend: Dense
    """Query, key and value side by side."""
    mixed: Dense
    first_norm: Dense
    widen: Dense
    narrow: Dense
    second_norm: Dense


class Encoder:
    """Immutable; safe from any thread. ``logits`` takes one to three milliseconds of one core."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]], vocabulary: Sequence[str]) -> None:
        self._vocabulary = WordPieces(vocabulary)
        self._tokens = arrays["tokens"].astype(np.int8)
        self._token_scales = arrays["tokens.scale"].astype(np.float32)
        self._positions = arrays["positions"].astype(np.float32)
        self._kinds = arrays["kinds"].astype(np.float32)
        self._norm = _pair(arrays, "norm")
        self._output = _pair(arrays, "output")
        count = sum(name.startswith("layer") and name.endswith(".widen.bias") for name in arrays)
        self._layers = tuple(_layer(arrays, f"layer{index}.") for index in range(count))

    def pieces(self, view: View) -> Pieces:
        """What it reads of a conversation."""
        return pieces_of(view, self._vocabulary)

    def logits(self, view: View) -> Array:
        """One for each label, in the order of LABELS."""
        pieces = self.pieces(view)
        numbers = np.array(pieces.numbers)
        state = self._tokens[numbers] * self._token_scales[numbers, None]
        state = state + self._positions[: len(numbers)] + self._kinds[pieces.kinds]
        state = _normalised(state, self._norm)
        for layer in self._layers:
            state = _through(state, layer)
        weights, bias = self._output
        result: Array = state.mean(axis=0) @ weights + bias
        return result


def _through(state: Array, layer: Layer) -> Array:
    length, size = state.shape
    weights, bias = layer.attend
    split = (state @ weights + bias).reshape(length, 3, HEADS, size // HEADS).transpose(1, 2, 0, 3)
    query, key, value = split[0], split[1], split[2]
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(size // HEADS))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    heard = (scores @ value).transpose(1, 0, 2).reshape(length, size)
    state = _normalised(state + heard @ layer.mixed[0] + layer.mixed[1], layer.first_norm)
    wide = _gelu(state @ layer.widen[0] + layer.widen[1])
    return _normalised(state + wide @ layer.narrow[0] + layer.narrow[1], layer.second_norm)


def _normalised(state: Array, norm: Dense) -> Array:
    centred = state - state.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    result: Array = centred / np.sqrt(variance + np.float32(_EPSILON)) * norm[0] + norm[1]
    return result


def _gelu(values: Array) -> Array:
    """The tanh form, which the encoder was trained with."""
    inner = np.float32(0.7978845608) * (values + np.float32(0.044715) * values * values * values)
    result: Array = np.float32(0.5) * values * (1 + np.tanh(inner))
    return result


def _pair(arrays: Mapping[str, npt.NDArray[np.generic]], name: str) -> Dense:
    """Weights and bias; weights that were stored as int8 have a scale for each output."""
    weights = arrays[f"{name}.weight"].astype(np.float32)
    if f"{name}.scale" in arrays:
        weights *= arrays[f"{name}.scale"].astype(np.float32)
    return np.ascontiguousarray(weights), arrays[f"{name}.bias"].astype(np.float32)


def _layer(arrays: Mapping[str, npt.NDArray[np.generic]], prefix: str) -> Layer:
    names = ("attend", "mixed", "first_norm", "widen", "narrow", "second_norm")
    return Layer(*(_pair(arrays, prefix + name) for name in names))
