"""The encoder: a small transformer from an excerpt of a conversation to three logits, and its tokenizer.

It is the first layers of all-MiniLM-L6-v2, fine-tuned; learning/encoder_training.py makes it. Written out in numpy
because that is all it needs: a few layers over at most MAX_TOKENS tokens, one text at a time. Architecture: BERT
(Devlin et al. 2018), as in sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0), whose weights it started from.

The tokenizer is BERT's WordPiece, uncased. It is written by hand since the library for it brings fifteen packages
along; the test compares with pieces that the library made.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.head.features import Excerpt

MAX_TOKENS = 32
ATTENTION_HEADS = 12
_TURN_START, _TURN_END, _PREVIOUS_TURN = 16, 8, 11
"""Tokens: of a long last turn, at its beginning and at its end; of the turn before a short one."""
_NORM_EPSILON = 1e-12
_UNKNOWN, CLS, SEP = 100, 101, 102
"""Token ids in the vocabulary of bert-base-uncased."""
_LONGEST_WORD = 100

Array = npt.NDArray[np.float32]
WeightsAndBias = tuple[Array, Array]
"""Of a dense layer: weights (in, out) and bias (out,). Of a layer norm: scale and shift, both (size,)."""


class WordPieceTokenizer:
    """BERT's tokenizer. ``tokens`` is the vocabulary: a token's id is its index, and "##" means inside a word."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._ids: Mapping[str, int] = {token: token_id for token_id, token in enumerate(tokens)}

    def token_ids(self, text: str, limit: int) -> list[int]:
        """The ids of the text's tokens. Reading stops at the end of the word in which ``limit`` of them are reached."""
        token_ids: list[int] = []
        for word in _split_words(text):
            token_ids += self._word_ids(word)
            if len(token_ids) >= limit:
                break
        return token_ids

    def _word_ids(self, word: str) -> list[int]:
        """The longest token each time, from the left; a word of which a part is in no token is unknown as a whole."""
        if len(word) > _LONGEST_WORD:
            return [_UNKNOWN]
        token_ids, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                token_id = self._ids.get(prefix + word[start:end])
                if token_id is not None:
                    break
            else:
                return [_UNKNOWN]
            token_ids.append(token_id)
            start = end
        return token_ids


def _split_words(text: str) -> Iterator[str]:
    """Lower-case words without accents; punctuation and Chinese characters are words of their own."""
    word = ""
    for char in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(char)
        if category == "Mn" or (category[0] == "C" and not char.isspace()):
            continue
        alone = _is_punctuation(char, category) or _is_ideograph(char)
        if (char.isspace() or alone) and word:
            yield word
            word = ""
        if alone:
            yield char
        elif not char.isspace():
            word += char
    if word:
        yield word


def _is_punctuation(char: str, category: str) -> bool:
    """Punctuation as Unicode has it, and all of ASCII but letters, digits and white space."""
    return category[0] == "P" or (char < "\x7f" and not char.isalnum() and not char.isspace())


def _is_ideograph(char: str) -> bool:
    code = ord(char)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FA1F
    )


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """What the encoder reads: token ids, and for each its segment, 0 for the turn before and 1 for the last one.

    Where there is only the last turn, all of it is segment 0. Both lists have the same length, at most MAX_TOKENS.
    """

    token_ids: list[int]
    segments: list[int]


def encoder_input(excerpt: Excerpt, tokenizer: WordPieceTokenizer) -> EncoderInput:
    """The last turn, without its middle if it is long; if it is short, the beginning of the turn before goes first."""
    last = tokenizer.token_ids(excerpt.last, 1 << 30)
    if len(last) > _TURN_START + _TURN_END:
        last = last[:_TURN_START] + last[-_TURN_END:]
    if len(excerpt.turns) < 2 or len(last) > _TURN_START:
        token_ids = [CLS, *last, SEP]
        return EncoderInput(token_ids, [0] * len(token_ids))
    previous = tokenizer.token_ids(excerpt.turns[1], _PREVIOUS_TURN)[:_PREVIOUS_TURN]
    return EncoderInput(
        [CLS, *previous, SEP, *last, SEP][:MAX_TOKENS],
        ([0] * (len(previous) + 2) + [1] * (len(last) + 1))[:MAX_TOKENS],
    )


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer. The names in the file are attend, mixed, first_norm, widen, narrow and second_norm."""

    query_key_value: WeightsAndBias
    """Query, key and value side by side: (size, 3 * size)."""
    attention_output: WeightsAndBias
    attention_norm: WeightsAndBias
    feed_forward_in: WeightsAndBias
    feed_forward_out: WeightsAndBias
    feed_forward_norm: WeightsAndBias


class Encoder:
    """The encoder. Immutable; safe from any thread. ``logits`` takes 6 to 14 ms of one core (measured).

    ``arrays`` is the encoder's file without its vocabulary: dense layers as int8 with a scale for each output.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]], vocabulary: Sequence[str]) -> None:
        self._tokenizer = WordPieceTokenizer(vocabulary)
        self._tokens = arrays["tokens"].astype(np.int8)
        self._token_scales = arrays["tokens.scale"].astype(np.float32)
        self._positions = arrays["positions"].astype(np.float32)
        self._segments = arrays["kinds"].astype(np.float32)
        self._norm = _read_weights(arrays, "norm")
        self._output = _read_weights(arrays, "output")
        count = sum(name.startswith("layer") and name.endswith(".widen.bias") for name in arrays)
        self._layers = tuple(_read_layer(arrays, f"layer{index}.") for index in range(count))

    def input_of(self, excerpt: Excerpt) -> EncoderInput:
        """What the encoder reads of the excerpt."""
        return encoder_input(excerpt, self._tokenizer)

    def logits(self, excerpt: Excerpt) -> Array:
        """The logits, (labels,), in the order of LABELS."""
        read = self.input_of(excerpt)
        ids = np.array(read.token_ids)
        state = self._tokens[ids] * self._token_scales[ids, None]
        state = state + self._positions[: len(ids)] + self._segments[read.segments]
        state = _layer_norm(state, self._norm)
        for layer in self._layers:
            state = _apply_layer(state, layer)
        weights, bias = self._output
        result: Array = state.mean(axis=0) @ weights + bias
        return result


def _apply_layer(state: Array, layer: Layer) -> Array:
    length, size = state.shape
    weights, bias = layer.query_key_value
    split = (state @ weights + bias).reshape(length, 3, ATTENTION_HEADS, size // ATTENTION_HEADS).transpose(1, 2, 0, 3)
    query, key, value = split[0], split[1], split[2]
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(size // ATTENTION_HEADS))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    attended = (scores @ value).transpose(1, 0, 2).reshape(length, size)
    state = _layer_norm(state + attended @ layer.attention_output[0] + layer.attention_output[1], layer.attention_norm)
    wide = _gelu(state @ layer.feed_forward_in[0] + layer.feed_forward_in[1])
    return _layer_norm(state + wide @ layer.feed_forward_out[0] + layer.feed_forward_out[1], layer.feed_forward_norm)


def _layer_norm(state: Array, norm: WeightsAndBias) -> Array:
    centred = state - state.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    result: Array = centred / np.sqrt(variance + np.float32(_NORM_EPSILON)) * norm[0] + norm[1]
    return result


def _gelu(values: Array) -> Array:
    """GELU in its tanh form, which the encoder was trained with."""
    inner = np.float32(0.7978845608) * (values + np.float32(0.044715) * values * values * values)
    result: Array = np.float32(0.5) * values * (1 + np.tanh(inner))
    return result


def _read_weights(arrays: Mapping[str, npt.NDArray[np.generic]], name: str) -> WeightsAndBias:
    """Weights and bias by name; int8 weights are multiplied by the scale of each output."""
    weights = arrays[f"{name}.weight"].astype(np.float32)
    if f"{name}.scale" in arrays:
        weights *= arrays[f"{name}.scale"].astype(np.float32)
    return np.ascontiguousarray(weights), arrays[f"{name}.bias"].astype(np.float32)


def _read_layer(arrays: Mapping[str, npt.NDArray[np.generic]], prefix: str) -> Layer:
    names = ("attend", "mixed", "first_norm", "widen", "narrow", "second_norm")
    return Layer(*(_read_weights(arrays, prefix + name) for name in names))
