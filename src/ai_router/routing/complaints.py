"""Whether a user is not content with the answer before: says so, or asks the same again in other words. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files

from ai_router.routing.prompt import text_of
from ai_router.types import Message

_WORD = re.compile(r"[\w']+")
_LONGEST_COMPLAINT = 15
"""Words. A longer message asks something of its own."""
_LEAST_WORDS = 3
_ALIKE = 0.6
"""From this share of common words on two questions are the same one."""
_MOST_CHARS = 2_000
_SHORT_WORD = 3
"""Words up to this length are in any question."""


def complaint(messages: Sequence[Message]) -> str:
    """Why the last user message is taken for a complaint, in plain words; empty: it is none."""
    texts = [text_of(message)[:_MOST_CHARS] for message in messages if message.get("role") == "user"]
    if len(texts) < 2:
        return ""
    words = _WORD.findall(texts[-1].lower().replace("\u2019", "'"))
    said = f" {' '.join(words)} "
    if len(words) <= _LONGEST_COMPLAINT and any(f" {phrase} " in said for phrase in _PHRASES):
        return "the user says that it was wrong"
    return "the user asks the same again" if _alike(texts[-1], texts[-2]) else ""


def _alike(text: str, before: str) -> bool:
    words, others = (_long_words(each) for each in (text, before))
    if min(len(words), len(others)) < _LEAST_WORDS:
        return False
    return len(words & others) / len(words | others) >= _ALIKE


def _long_words(text: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(text.lower()) if len(word) > _SHORT_WORD)


def _read_phrases() -> frozenset[str]:
    table = tomllib.loads(files("ai_router.routing").joinpath("complaints.toml").read_text("utf-8"))
    return frozenset(" ".join(_WORD.findall(phrase)) for row in table["complaints"] for phrase in row["say"])


_PHRASES = _read_phrases()
