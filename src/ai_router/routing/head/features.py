"""What the head reads of a conversation, and hashed features of it for the linear model.

An Excerpt is what the last user turn asks and a little of what came before. Its features are runs of words and
characters, each hashed into one of 2**BITS buckets, with a weight. Deterministic, bounded, no vocabulary, no state.

A turn is split into a *frame*, which says what is asked, and a *payload*, what it is asked about: quoted spans, code
and whatever follows a colon and a line break. "Translate 'what is the weather today'" has the frame of a translation.
The features of the two are hashed apart, so that the model can learn that a payload tells little.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.ask import Ask
from ai_router.routing.prompt import both_ends, text_of
from ai_router.types import Message

TURN_CHARS = 1_200
"""Characters of a turn that are read, half of them at each end: people put the question at either."""
ANSWER_CHARS = 240
"""Characters of the last answer that are read, at its beginning."""
BITS = 20
BUCKETS = 1 << BITS

_Hashes = npt.NDArray[np.uint64]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+|[^\w\s]")
_YEAR = re.compile(r"\b(1\d|20)\d\d\b")
_DIGIT = re.compile(r"\d")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_QUOTED = re.compile(
    r"(?<!\w)['‘](?!\s)[^'‘’\n]{2,400}(?<!\s)['’](?!\w)|\"[^\"]{2,600}\"|“[^”]{2,600}”|«[^»]{2,600}»|„[^“”]{2,600}[“”]",
)
_AFTER_COLON = re.compile(r":\s*\n.*\Z", re.DOTALL)
_AFTER_SHORT_COLON = re.compile(r"^([^:\n]{4,90}):\s+(\S.{12,})\Z", re.DOTALL)
_CODE_MARKERS = ("{", "};", "def ", "();", "=>", "#include", "SELECT ", "import ")
_MATH_CHARS = ("$", "\\", "^", "∑", "∫", "√", "≤", "≥", "∈", "→", "∞")
_URL = re.compile(r"https?://\S+|\bwww\.\S+")

_MIX = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0x100000001B3)
_MAX_WORDS = 260
_CHAR_NGRAMS = (3, 4, 5)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What the head reads of a conversation.

    ``turns``: what the user's last two turns at most ask, newest first, each cut to TURN_CHARS; never empty, ("",) for
    nothing. ``answer``: the beginning of the assistant's last answer. ``length``: characters of the newest ask before
    it was cut.
    """

    turns: tuple[str, ...]
    answer: str
    length: int
    partial: bool = False
    """Whether the turn has more than the text that is read: an image, or what a tool answered after it."""
    whole: str = ""
    """All of the newest turn, cut to TURN_CHARS, where the ask is only a part of it."""
    certainty: float = 1.0
    """How clear it was what of the newest turn asks (Ask)."""
    ask: Ask | None = None
    """The ask that was found in the newest turn; None: it was not looked for."""

    @property
    def last(self) -> str:
        """The newest user turn."""
        return self.turns[0]

    def with_ask(self, ask: Ask) -> Excerpt:
        """The same, with another ask found in the newest turn."""
        message, last = self.whole or self.last, both_ends(ask.text, TURN_CHARS)
        is_all = last == message
        return dataclasses.replace(
            self,
            turns=(last, *self.turns[1:]),
            length=len(ask.text),
            whole="" if is_all else message,
            certainty=1.0 if is_all else ask.certainty,
            ask=ask,
        )


def excerpt_of(messages: Sequence[Message], find_ask: Callable[[str], Ask] | None = None) -> Excerpt:
    """The excerpt of a conversation. Reads back no further than the turn before the last.

    ``find_ask`` finds what a message asks; None: all of it.
    """
    turns: list[str] = []
    answer, whole, length, certainty = "", "", 0, 1.0
    found: Ask | None = None
    partial = bool(messages) and messages[-1].get("role") != "user"
    for message in reversed(messages):
        role = message.get("role")
        if role == "user":
            text = text_of(message)
            ask = None if find_ask is None else find_ask(text)
            asked = text if ask is None else ask.text
            if not turns:
                length, partial, found = len(asked), partial or not _is_text_only(message), ask
                if ask is not None and asked != text:
                    whole, certainty = both_ends(text, TURN_CHARS), ask.certainty
            turns.append(both_ends(asked, TURN_CHARS))
            if len(turns) > 1:
                break
        elif role == "assistant" and turns and not answer:
            answer = text_of(message)[:ANSWER_CHARS]
    if not turns and find_ask is not None:
        found = find_ask("")  # of a conversation in which the user says nothing
    return Excerpt(tuple(turns) or ("",), answer, length, partial, whole, certainty, found)


def _is_text_only(message: Message) -> bool:
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return True
    return all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content)


@dataclass(frozen=True, slots=True)
class Features:
    """``buckets``, int64 in [0, BUCKETS), and their ``weights``, float32, both (n,); ``words``: hashes of the frame's
    words, uint64."""

    buckets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    words: _Hashes


@dataclass(frozen=True, slots=True)
class TurnParts:
    """A turn's frame and payload, lower-case. The frame has a placeholder for each piece that went to the payload."""

    frame: str
    payload: str


def split_turn(text: str, year: int) -> TurnParts:
    """Frame and payload of a turn. ``year`` is the present one: years in the text become "past" or "not past"."""
    pieces: list[str] = []

    def set_aside(match: re.Match[str], placeholder: str) -> str:
        pieces.append(match.group(0))
        return placeholder

    frame = _URL.sub(" ⓤ ", text)
    frame = _CODE.sub(lambda match: set_aside(match, " ⓒ "), frame)
    frame = _QUOTED.sub(lambda match: set_aside(match, " ⓠ "), frame)
    frame = _AFTER_COLON.sub(lambda match: set_aside(match, ": ⓟ"), frame)
    if short := _AFTER_SHORT_COLON.match(frame):
        pieces.append(short.group(2))
        frame = f"{short.group(1)}: ⓢ"
    return TurnParts(normalised_text(frame, year), normalised_text(" ".join(pieces), year))


def normalised_text(text: str, year: int) -> str:
    """Lower-case, single blanks, every digit 0; a year from last year on is ⓨ, an earlier one ⓞ."""
    dated = _YEAR.sub(lambda match: "ⓨ" if int(match.group(0)) >= year - 1 else "ⓞ", text)
    return " ".join(_DIGIT.sub("0", dated).lower().split())


def _form_words(excerpt: Excerpt, parts: TurnParts) -> list[str]:
    """The form of a turn, as words: how long, how many lines, how it ends, which script, whether code or formulas."""
    text, words = excerpt.last, len(parts.frame.split())
    last = text.rstrip()[-1:]
    marks = [
        f"words:{words if words < 5 else words.bit_length() * 10}",
        f"chars:{excerpt.length.bit_length()}",
        f"lines:{min(text.count(chr(10)).bit_length(), 5)}",
        f"payload:{len(parts.payload).bit_length() // 2}",
        f"ends:{last if last in ('?', '!', '.', ':') else 'other'}",
        f"script:{_script(text)}",
    ]
    if any(marker in text for marker in _CODE_MARKERS):
        marks.append("code")
    if any(char in text for char in _MATH_CHARS):
        marks.append("mathematics")
    return marks


def _script(text: str) -> str:
    non_latin = sum(ord(char) > 0x24F for char in text[:200])
    if non_latin * 3 > len(text[:200]):
        return "other"
    return "accents" if any("À" <= char <= "ɏ" for char in text) else "ascii"


def words_of(text: str) -> list[str]:
    """Words, numbers and punctuation; of more than _MAX_WORDS those at both ends."""
    words = _WORD.findall(text)
    return words if len(words) <= _MAX_WORDS else words[: _MAX_WORDS // 2] + words[-_MAX_WORDS // 2 :]


def word_hashes(words: Sequence[str]) -> _Hashes:
    """A hash for each word, uint64 (words,)."""
    return np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))


def word_ngrams(hashes: _Hashes, size: int) -> _Hashes:
    """Hashes of all runs of ``size`` words; from two words up, beginning and end of the text count as words."""
    if size == 1:
        return hashes
    bounded = np.concatenate((np.array([1], np.uint64), hashes, np.array([2], np.uint64)))
    return _ngram_hashes(bounded, size)


def char_ngrams(text: str) -> _Hashes:
    """Hashes of all runs of 3, 4 and 5 characters."""
    points = np.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    return np.concatenate([_ngram_hashes(points, size) for size in _CHAR_NGRAMS])


def _ngram_hashes(values: _Hashes, size: int) -> _Hashes:
    count = len(values) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashed = np.full(count, size, np.uint64)
    for offset in range(size):
        hashed = (hashed ^ values[offset : offset + count]) * _BASE
        hashed ^= hashed >> np.uint64(29)
    return hashed


def _buckets(hashes: _Hashes, namespace: str) -> npt.NDArray[np.int64]:
    seed = np.uint64(zlib.crc32(namespace.encode()) * int(_BASE) % (1 << 64))
    mixed = (hashes ^ seed) * _MIX
    return (mixed >> np.uint64(64 - BITS)).astype(np.int64)


def combine_features(namespaces: Sequence[tuple[str, float, _Hashes]], words: _Hashes) -> Features:
    """Features from (namespace, weight, hashes). A namespace's vector has the Euclidean length ``weight``."""
    buckets, weights = [], []
    for namespace, weight, hashes in namespaces:
        touched = np.unique(_buckets(hashes, namespace))
        if len(touched):
            buckets.append(touched)
            weights.append(np.full(len(touched), weight / np.sqrt(len(touched)), np.float32))
    if not buckets:
        return Features(np.empty(0, np.int64), np.empty(0, np.float32), words)
    return Features(np.concatenate(buckets), np.concatenate(weights), words)


def excerpt_features(excerpt: Excerpt, year: int) -> Features:
    """The features of the last turn and, if there is one, of the turn before and of the answer to it.

    What came before weighs more, the shorter the last turn is: "and tomorrow?" says nothing by itself.
    """
    parts = split_turn(excerpt.last, year)
    frame, payload = word_hashes(words_of(parts.frame)), word_hashes(words_of(parts.payload))
    namespaces = [
        ("f1", 1.0, word_ngrams(frame, 1)),
        ("f2", 1.0, word_ngrams(frame, 2)),
        ("f3", 0.7, word_ngrams(frame, 3)),
        ("c", 1.2, char_ngrams(parts.frame[:600])),
        ("begin", 0.7, word_ngrams(frame[:4], 2)),
        ("end", 0.4, word_ngrams(frame[-3:], 1)),
        ("p1", 0.5, word_ngrams(payload, 1)),
        ("p2", 0.3, word_ngrams(payload, 2)),
        ("m", 0.8, word_hashes(_form_words(excerpt, parts))),
    ]
    if len(excerpt.turns) > 1:
        namespaces += _context_features(excerpt, len(frame), year)
    return combine_features(namespaces, frame)


def _context_features(excerpt: Excerpt, words: int, year: int) -> list[tuple[str, float, _Hashes]]:
    weight = 1.0 if words <= 5 else 0.7 if words <= 10 else 0.3 if words <= 20 else 0.1
    turn = word_hashes(words_of(split_turn(excerpt.turns[1], year).frame)[:60])
    answer = word_hashes(words_of(normalised_text(excerpt.answer, year)))
    short = "short" if words <= 10 else "long"
    return [
        ("before1", weight, word_ngrams(turn, 1)),
        ("before2", weight, word_ngrams(turn, 2)),
        ("beforec", weight, char_ngrams(normalised_text(excerpt.turns[1], year)[:200])),
        ("answer1", 0.6 * weight, word_ngrams(answer, 1)),
        ("follows", 0.5, word_hashes([short])),
    ]


def word_buckets(excerpt: Excerpt, year: int) -> list[tuple[str, int]]:
    """The words of the last turn's frame with the bucket of each, for explanations."""
    words = words_of(normalised_text(split_turn(excerpt.last, year).frame, year))
    hashes = word_hashes(words)
    buckets = _buckets(hashes, "f1").tolist()
    return [(word, bucket) for word, bucket in zip(words, buckets, strict=True) if word[0].isalpha()]
