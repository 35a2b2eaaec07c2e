"""Whether a user is not content with the answer before: says so, or asks the same again in other words. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files

from ai_router.routing.ask import unwrap
from ai_router.routing.prompt import text_of
from ai_router.types import Message

_WORD = re.compile(r"[\w']+")
_LONGEST_COMPLAINT = 15
"""Words. A longer message asks something of its own."""
_LEAST_WORDS = 3
_ALIKE = 0.6
"""From this share of common words on two questions are the same one."""
_MOST_CHARS = 2_000
_SHORT_WORD = 4
"""Words up to this length are in any question, unless they are names or numbers."""
_STEM = 5
"""Letters of a word that stay when it is inflected: "configure", "configured"."""


def complaint(messages: Sequence[Message]) -> str:
    """Why the last user message is taken for a complaint, in plain words; empty: it is none."""
    asked = [message for message in messages if message.get("role") == "user"][-2:]
    if len(asked) < 2:
        return ""
    # What a client puts around each message is the same every time.
    texts = [unwrap(text_of(message))[:_MOST_CHARS] for message in asked]
    words = _WORD.findall(texts[-1].lower().replace("\u2019", "'"))
    said = f" {' '.join(words)} "
    if len(words) <= _LONGEST_COMPLAINT and any(f" {phrase} " in said for phrase in _PHRASES):
        return "the user says that it was wrong"
    return "the user asks the same again" if _alike(texts[-1], texts[-2]) else ""


def _alike(text: str, before: str) -> bool:
    """Whether the same is asked, with more words or with fewer, and nothing in its place: "into French" is not "into
    Spanish"."""
    names, words = _telling_words(text)
    names_before, words_before = _telling_words(before)
    shared = words & words_before
    if min(len(words), len(words_before)) < _LEAST_WORDS or not names <= names_before:
        return False
    return shared in (words, words_before) and len(shared) / len(words | words_before) >= _ALIKE


def _telling_words(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Names and numbers; and these with the stems of long words."""
    found = list(_WORD.finditer(text))
    names = frozenset(word[0].lower() for word in found if _is_name(text, word) or any(map(str.isdigit, word[0])))
    stems = (word[0].lower()[:_STEM] for word in found if len(word[0]) > _SHORT_WORD)
    return names, names.union(stems)


def _is_name(text: str, word: re.Match[str]) -> bool:
    return word[0][0].isupper() and not _begins_sentence(text, word.start())


def _begins_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip(" \t\"'")
    return not before or before[-1] in ".!?:\n"


def _read_phrases() -> frozenset[str]:
    table = tomllib.loads(files("ai_router.routing").joinpath("complaints.toml").read_text("utf-8"))
    return frozenset(" ".join(_WORD.findall(phrase)) for row in table["complaints"] for phrase in row["say"])


_PHRASES = _read_phrases()
