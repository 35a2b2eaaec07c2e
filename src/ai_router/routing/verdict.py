"""Reading a classifier's answer: the decision word, and how sure it was. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ai_router.types import Label

LABELS = (Label.MODERATE, Label.COMPLEX, Label.ENRICH)
_EXACT = re.compile(rf"\b({'|'.join(LABELS)})")
_ANY_CASE = re.compile(rf"\b({'|'.join(LABELS)})\b", re.IGNORECASE)
_THINK_END = "</think>"
_PREAMBLE = 40
"""A decision word within so many characters of the answer's start is the answer ("**Decision:** COMPLEX"); a later one
may be an alternative under discussion, so that only the end of the text settles it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The classifier's word, its probability among the labels if it told, and why it stopped."""

    label: Label
    confidence: float | None
    finish_reason: str


def constrained_verdict(payload: Mapping[str, Any]) -> Verdict | None:
    """The verdict in a chat completion asked for one token of a choice; None for garbage.

    One token may be a part of a label ("MOD"): the labels differ in their first letter, so any part of one names it. A
    server that ignored the constraint may have written more; then the word is looked for as in reasoning.
    """
    choice = _first_choice(payload)
    message = _mapping(choice.get("message"))
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    label = label_of_token(text) or word_in_answer(text, _reasoning(message))
    if label is None:
        return None
    return Verdict(label, label_probability(label, _top_logprobs(choice)), str(choice.get("finish_reason")))


def label_of_token(token: str) -> Label | None:
    """The one label that begins with ``token``, case and outer blanks aside."""
    bare = token.strip().upper()
    if not bare:
        return None
    return next((label for label in LABELS if label.startswith(bare)), None)


def label_probability(label: Label, logprobs: Iterable[tuple[str, float]]) -> float | None:
    """The share of ``label`` in the probability of all tokens that begin a label; None if no token does.

    vLLM reports log-probabilities from before the constraint is applied, so they have to be normalised over the labels.
    """
    mass = dict.fromkeys(LABELS, 0.0)
    for token, logprob in logprobs:
        named = label_of_token(token)
        if named is not None:
            mass[named] += math.exp(min(logprob, 0.0))
    total = sum(mass.values())
    return mass[label] / total if total > 0 else None


def word_in_answer(content: str, reasoning: str) -> Label | None:
    """The decision word of a finished free-text answer.

    The content behind a think block counts first. Only if nothing is there does the thinking count, and of that
    the last word, because the earlier ones are the alternatives it weighs.
    """
    thinking, closed, answer = content.rpartition(_THINK_END)
    if not closed and content.lstrip().startswith("<think>"):
        thinking, answer = content, ""
    return _early_word(answer) or _last_word(answer) or _last_word(thinking) or _last_word(reasoning)


class WordFinder:
    """Finds the decision word in a streamed answer, as soon as it stands.

    Feed it deltas; ``feed`` returns the label once it is certain, ``finish`` decides when the stream has ended without.
    """

    __slots__ = ("_content", "_reasoning")

    def __init__(self) -> None:
        self._content = ""
        self._reasoning = ""

    def feed(self, content: str, reasoning: str) -> Label | None:
        """Take a delta of each; the label if the content now holds it outside of any think block."""
        self._reasoning += reasoning
        if not content:
            return None
        self._content += content
        _, closed, answer = self._content.rpartition(_THINK_END)
        if not closed and self._content.lstrip().startswith("<think>"[: len(self._content.lstrip())]):
            return None
        return _early_word(answer)

    def finish(self) -> Label | None:
        """The word in all that came, or None."""
        return word_in_answer(self._content, self._reasoning)


def delta_texts(payload: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Content, reasoning and finish_reason of one stream chunk; absent ones are "" and None."""
    choice = _first_choice(payload)
    delta = _mapping(choice.get("delta"))
    content = delta.get("content")
    return content if isinstance(content, str) else "", _reasoning(delta), choice.get("finish_reason")


def _reasoning(message: Mapping[str, Any]) -> str:
    """vLLM 0.33 calls it ``reasoning``; older versions and llama.cpp ``reasoning_content``."""
    for name in ("reasoning", "reasoning_content"):
        text = message.get(name)
        if isinstance(text, str) and text:
            return text
    return ""


def _early_word(text: str) -> Label | None:
    found = _EXACT.search(text.lstrip(), 0, _PREAMBLE + len(Label.MODERATE))
    return Label(found.group(1)) if found else None


def _last_word(text: str) -> Label | None:
    found = _EXACT.findall(text) or _ANY_CASE.findall(text)
    return Label(found[-1].upper()) if found else None


def _first_choice(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = payload.get("choices")
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _top_logprobs(choice: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    content = _mapping(choice.get("logprobs")).get("content")
    first = _mapping(content[0]) if isinstance(content, list) and content else {}
    listed = first.get("top_logprobs")
    for entry in map(_mapping, listed if isinstance(listed, list) and listed else [first]):
        token, logprob = entry.get("token"), entry.get("logprob")
        if isinstance(token, str) and isinstance(logprob, (int, float)):
            yield token, float(logprob)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
