"""What the head reads of a conversation, and the hashed features of it: which of 2**BITS buckets it touches, and how
much. Deterministic, bounded, no vocabulary, no state.

A request is read as a *frame*, which says what is asked, and a *payload*, what it is asked about: quoted spans,
code and whatever follows a colon and a line break. "Translate 'what is the weather today'" has the frame of a
translation. Features of the two live in namespaces of their own, so that the model can learn that a payload tells
little.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.routing.prompt import text_of
from ai_router.types import Message

TURN_CHARS = 1_200
"""Of a turn, at both ends: people put the question at either."""
ANSWER_CHARS = 240
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
_CODE_SIGNS = ("{", "};", "def ", "();", "=>", "#include", "SELECT ", "import ")
_MATHEMATICS = ("$", "\\", "^", "∑", "∫", "√", "≤", "≥", "∈", "→", "∞")
_URL = re.compile(r"https?://\S+|\bwww\.\S+")

_MIX = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0x100000001B3)
_MAX_WORDS = 260
_CHAR_GRAMS = (3, 4, 5)


@dataclass(frozen=True, slots=True)
class View:
    """``turns``: what the user said, newest first, at most two, each cut to TURN_CHARS; never empty, "" for nothing.

    ``answer`` is the beginning of the last answer, ``length`` the characters of the newest turn before it was cut.
    """

    turns: tuple[str, ...]
    answer: str
    length: int
    partial: bool = False
    """Whether there is more to the turn than its text: an image, or what a tool said after it."""

    @property
    def last(self) -> str:
        """The newest user turn."""
        return self.turns[0]


def view_of(messages: Sequence[Message]) -> View:
    """The view of a conversation. Looks back no further than the turn before the last."""
    turns: list[str] = []
    answer, length = "", 0
    partial = bool(messages) and messages[-1].get("role") != "user"
    for message in reversed(messages):
        role = message.get("role")
        if role == "user":
            text = text_of(message)
            if not turns:
                length, partial = len(text), partial or not _is_text(message)
            turns.append(_both_ends(text))
            if len(turns) > 1:
                break
        elif role == "assistant" and turns and not answer:
            answer = text_of(message)[:ANSWER_CHARS]
    return View(tuple(turns) or ("",), answer, length, partial)


def _is_text(message: Message) -> bool:
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return True
    return all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content)


def _both_ends(text: str) -> str:
    if len(text) <= TURN_CHARS:
        return text
    half = TURN_CHARS // 2
    return f"{text[:half]}\n{text[-half:]}"


@dataclass(frozen=True, slots=True)
class Features:
    """Bucket numbers, int64 in [0, BUCKETS), and a weight for each, float32; ``words``: the frame's, as hashes."""

    buckets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    words: _Hashes


@dataclass(frozen=True, slots=True)
class Parts:
    """A turn taken apart. ``frame`` has a placeholder where each piece of ``payload`` stood; both lower-case."""

    frame: str
    payload: str


def take_apart(text: str, year: int) -> Parts:
    """Frame, payload and marks of a turn; ``year`` is the present one: a year counts as past or not."""
    pieces: list[str] = []

    def keep(match: re.Match[str], placeholder: str) -> str:
        pieces.append(match.group(0))
        return placeholder

    frame = _URL.sub(" ⓤ ", text)
    frame = _CODE.sub(lambda match: keep(match, " ⓒ "), frame)
    frame = _QUOTED.sub(lambda match: keep(match, " ⓠ "), frame)
    frame = _AFTER_COLON.sub(lambda match: keep(match, ": ⓟ"), frame)
    if short := _AFTER_SHORT_COLON.match(frame):
        pieces.append(short.group(2))
        frame = f"{short.group(1)}: ⓢ"
    return Parts(_plain(frame, year), _plain(" ".join(pieces), year))


def _plain(text: str, year: int) -> str:
    """Lower-case, blanks single, digits made alike, years made past or present."""
    dated = _YEAR.sub(lambda match: "ⓨ" if int(match.group(0)) >= year - 1 else "ⓞ", text)
    return " ".join(_DIGIT.sub("0", dated).lower().split())


def _marks(view: View, parts: Parts) -> list[str]:
    """Traits of the form, as words of a namespace of their own."""
    text, words = view.last, len(parts.frame.split())
    last = text.rstrip()[-1:]
    marks = [
        f"words:{words if words < 5 else words.bit_length() * 10}",
        f"chars:{view.length.bit_length()}",
        f"lines:{min(text.count(chr(10)).bit_length(), 5)}",
        f"payload:{len(parts.payload).bit_length() // 2}",
        f"ends:{last if last in ('?', '!', '.', ':') else 'other'}",
        f"script:{_script(text)}",
    ]
    if any(sign in text for sign in _CODE_SIGNS):
        marks.append("code")
    if any(sign in text for sign in _MATHEMATICS):
        marks.append("mathematics")
    return marks


def _script(text: str) -> str:
    beyond = sum(ord(sign) > 0x24F for sign in text[:200])
    return (
        "other" if beyond * 3 > len(text[:200]) else "accents" if any("À" <= sign <= "ɏ" for sign in text) else "ascii"
    )


def words_of(text: str) -> list[str]:
    """Words, numbers and signs, at most _MAX_WORDS, from both ends."""
    words = _WORD.findall(text)
    return words if len(words) <= _MAX_WORDS else words[: _MAX_WORDS // 2] + words[-_MAX_WORDS // 2 :]


def word_hashes(words: Sequence[str]) -> _Hashes:
    """One hash a word."""
    return np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))


def word_grams(hashes: _Hashes, size: int) -> _Hashes:
    """Hashes of all runs of ``size`` words, a begin and an end mark included from two words up."""
    if size == 1:
        return hashes
    edged = np.concatenate((np.array([1], np.uint64), hashes, np.array([2], np.uint64)))
    return _runs(edged, size)


def char_grams(text: str) -> _Hashes:
    """Hashes of all runs of 3, 4 and 5 characters."""
    points = np.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    return np.concatenate([_runs(points, size) for size in _CHAR_GRAMS])


def _runs(values: _Hashes, size: int) -> _Hashes:
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


def gather(namespaces: Sequence[tuple[str, float, _Hashes]], words: _Hashes) -> Features:
    """Features of (namespace, weight, hashes): each namespace's vector has the length that is its weight."""
    buckets, weights = [], []
    for namespace, weight, hashes in namespaces:
        touched = np.unique(_buckets(hashes, namespace))
        if len(touched):
            buckets.append(touched)
            weights.append(np.full(len(touched), weight / np.sqrt(len(touched)), np.float32))
    if not buckets:
        return Features(np.empty(0, np.int64), np.empty(0, np.float32), words)
    return Features(np.concatenate(buckets), np.concatenate(weights), words)


def view_features(view: View, year: int) -> Features:
    """The features of a conversation's last turn, with those of what came before where there is something before.

    What came before counts the more the shorter the last turn is: "and tomorrow?" says nothing by itself.
    """
    parts = take_apart(view.last, year)
    frame, payload = word_hashes(words_of(parts.frame)), word_hashes(words_of(parts.payload))
    spaces = [
        ("f1", 1.0, word_grams(frame, 1)),
        ("f2", 1.0, word_grams(frame, 2)),
        ("f3", 0.7, word_grams(frame, 3)),
        ("c", 1.2, char_grams(parts.frame[:600])),
        ("begin", 0.7, word_grams(frame[:4], 2)),
        ("end", 0.4, word_grams(frame[-3:], 1)),
        ("p1", 0.5, word_grams(payload, 1)),
        ("p2", 0.3, word_grams(payload, 2)),
        ("m", 0.8, word_hashes(_marks(view, parts))),
    ]
    if len(view.turns) > 1:
        spaces += _before(view, len(frame), year)
    return gather(spaces, frame)


def _before(view: View, words: int, year: int) -> list[tuple[str, float, _Hashes]]:
    weight = 1.0 if words <= 5 else 0.7 if words <= 10 else 0.3 if words <= 20 else 0.1
    turn = word_hashes(words_of(take_apart(view.turns[1], year).frame)[:60])
    answer = word_hashes(words_of(_plain(view.answer, year)))
    short = "short" if words <= 10 else "long"
    return [
        ("before1", weight, word_grams(turn, 1)),
        ("before2", weight, word_grams(turn, 2)),
        ("beforec", weight, char_grams(_plain(view.turns[1], year)[:200])),
        ("answer1", 0.6 * weight, word_grams(answer, 1)),
        ("follows", 0.5, word_hashes([short])),
    ]


def word_buckets(view: View, year: int) -> list[tuple[str, int]]:
    """The words of the last turn's frame with the bucket of each, for explanations."""
    words = words_of(_plain(take_apart(view.last, year).frame, year))
    hashes = word_hashes(words)
    buckets = _buckets(hashes, "f1").tolist()
    return [(word, bucket) for word, bucket in zip(words, buckets, strict=True) if word[0].isalpha()]
