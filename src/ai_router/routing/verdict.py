"""Reading a classifier's answer: the label, and the probability that the classifier gave it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from ai_router.routing.dial import complex_share
from ai_router.types import DecidedBy, Decision, Label, LabelName, label_named, route_of

_LABEL = re.compile(r"[A-Z][A-Z0-9_-]*")


def tokens_to_tell_apart(labels: Sequence[str]) -> int:
    """How many tokens of a constrained answer are enough to name one of ``labels``, whatever the model's tokenizer.

    A constrained answer is one of the labels, letter by letter, and each of its tokens is at least one letter. So it is
    the number of first letters by which all labels differ. Raises ValueError for labels of which this is not true: one
    that is the beginning of another, or that has other characters (one beyond ASCII may be several tokens; case and
    blanks are ignored where answers are read).
    """
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"a label is made of A to Z, 0 to 9, - and _, not {label!r}")
    for label, other in permutations(labels, 2):
        if other.startswith(label):
            raise ValueError(f"no label may begin with another, as {other} does with {label}")
    longest = max(map(len, labels))
    return next(count for count in range(1, longest + 1) if len({label[:count] for label in labels}) == len(labels))


LABELS = (Label.MODERATE, Label.COMPLEX, Label.ENRICH)
"""Those that the router has by itself, in the order in which the head gives their probabilities."""
_THINK_END = "</think>"
_NEAR_START_CHARS = 40
"""A decision word within so many characters of the answer's start is the answer ("**Decision:** COMPLEX"); a later one
may be an alternative under discussion, so that only the end of the text settles it."""


class LabelSet:
    """What a classifier may say. Immutable.

    ``deciding_tokens``: how many tokens to ask a constrained classifier for; 1 for LABELS, which differ in their first
    letter. ``longest``: the length of the longest name. Raises ValueError as ``tokens_to_tell_apart``.
    """

    def __init__(self, names: Sequence[LabelName] = LABELS) -> None:
        self.names = tuple(names)
        self.deciding_tokens = tokens_to_tell_apart(self.names)
        self.longest = max(map(len, self.names))
        words = "|".join(map(re.escape, self.names))
        self.upper_case_word = re.compile(rf"\b({words})")
        self.any_case_word = re.compile(rf"\b({words})\b", re.IGNORECASE)


BUILT_IN = LabelSet()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The classifier's label; ``confidence``, its probability among the labels, None if the server gave none; and the
    answer's finish_reason ("early" where we stopped reading)."""

    label: LabelName
    confidence: float | None
    finish_reason: str
    complex_share: float | None = None
    """P(COMPLEX) / (P(COMPLEX) + P(MODERATE)); None if the server gave no probabilities."""
    probabilities: Mapping[LabelName, float] = field(default_factory=dict)
    """Of all labels, where the server gave them."""


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token of an answer, and (token, log-probability) of the likeliest at its position, itself among them."""

    text: str
    candidates: Sequence[tuple[str, float]]


def decision_of(verdict: Verdict, duration_ms: float) -> Decision:
    """The decision that a verdict leads to."""
    return Decision(
        label=verdict.label,
        route=route_of(verdict.label),
        decided_by=DecidedBy.CLASSIFIER,
        reason=f"classifier: {verdict.label}",
        confidence=verdict.confidence,
        duration_ms=duration_ms,
        finish_reason=verdict.finish_reason,
        complex_share=verdict.complex_share,
    )


def constrained_verdict(payload: Mapping[str, Any], labels: LabelSet = BUILT_IN) -> Verdict | None:
    """The verdict in a chat completion that was constrained to ``labels`` and cut after their ``deciding_tokens``; None
    for garbage.

    The answer may be only the beginning of a label ("MOD"). A server that ignored the constraint may have written
    something else; then the word is looked for as in reasoning.
    """
    choice = _first_choice(payload)
    message = _mapping(choice.get("message"))
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    label = label_beginning_with(text, labels.names) or word_in_answer(text, _reasoning(message), labels)
    if label is None:
        return None
    tokens = _generated_tokens(choice)
    probabilities = {each: label_probability(each, tokens, labels.names) for each in labels.names}
    known = {each: found for each, found in probabilities.items() if found is not None}
    return Verdict(label, known.get(label), str(choice.get("finish_reason")), complex_share(known), known)


def label_beginning_with(text: str, labels: Sequence[LabelName] = LABELS) -> LabelName | None:
    """The one label that begins with ``text``, case and outer blanks aside; None if no label does, or several do."""
    named = _labels_beginning_with(text, labels)
    return named[0] if len(named) == 1 else None


def label_probability(
    label: LabelName, tokens: Sequence[GeneratedToken], labels: Sequence[LabelName] = LABELS
) -> float | None:
    """The probability of ``label`` among ``labels``, following the answer's tokens until they name one of them.

    At each position the probability of a candidate goes to the label that it names, together with the tokens before it.
    The generated token may still be the beginning of several labels: its probability is divided by the next position.
    Of another candidate that may name several labels each gets its part; one that names none is left out. None if no
    candidate names a label, or if the tokens end before the answer names one.

    vLLM reports log-probabilities from before the constraint is applied, so they are normalised over what is left.
    """
    found, undecided, written = 0.0, 1.0, ""
    for token in tokens:
        named = dict.fromkeys(labels, 0.0)
        shared = 0.0
        for text, logprob in token.candidates:
            beginnings = _labels_beginning_with(written + text, labels)
            if len(beginnings) == 1:
                named[beginnings[0]] += math.exp(min(logprob, 0.0))
            elif beginnings and text == token.text:
                shared += math.exp(min(logprob, 0.0))
            else:
                # What would have followed is not known: it is as likely to be any of them.
                for label_of_several in beginnings:
                    named[label_of_several] += math.exp(min(logprob, 0.0)) / len(beginnings)
        total = sum(named.values()) + shared
        if total <= 0:
            return None
        found += undecided * named[label] / total
        undecided *= shared / total
        written += token.text
        if not shared:
            return found
    return None


def _labels_beginning_with(text: str, labels: Sequence[LabelName]) -> Sequence[LabelName]:
    letters = text.strip().upper()
    return [label for label in labels if label.startswith(letters)] if letters else []


def word_in_answer(content: str, reasoning: str, labels: LabelSet = BUILT_IN) -> LabelName | None:
    """The decision word of a finished free-text answer.

    The content behind a think block counts first. Only if nothing is there does the thinking count, and of that
    the last word, because the earlier ones are the alternatives it weighs.
    """
    thinking, closed, answer = content.rpartition(_THINK_END)
    if not closed and content.lstrip().startswith("<think>"):
        thinking, answer = content, ""
    found = _word_near_start(answer, labels) or _last_word(answer, labels)
    return found or _last_word(thinking, labels) or _last_word(reasoning, labels)


class WordFinder:
    """Finds the decision word in a streamed answer as soon as it is certain.

    ``feed`` takes the deltas and returns the label once it is certain; ``finish`` decides at the end of the stream.
    """

    __slots__ = ("_content", "_labels", "_reasoning")

    def __init__(self, labels: LabelSet = BUILT_IN) -> None:
        self._labels = labels
        self._content = ""
        self._reasoning = ""

    def feed(self, content: str, reasoning: str) -> LabelName | None:
        """Take a delta of each; the label if the content now holds it outside of any think block."""
        self._reasoning += reasoning
        if not content:
            return None
        self._content += content
        _, closed, answer = self._content.rpartition(_THINK_END)
        if not closed and self._content.lstrip().startswith("<think>"[: len(self._content.lstrip())]):
            return None
        return _word_near_start(answer, self._labels)

    def finish(self) -> LabelName | None:
        """The label in everything that was fed; None if there is none."""
        return word_in_answer(self._content, self._reasoning, self._labels)


def delta_texts(payload: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Content, reasoning and finish_reason of one stream chunk; absent ones are "" and None."""
    choice = _first_choice(payload)
    delta = _mapping(choice.get("delta"))
    content = delta.get("content")
    return content if isinstance(content, str) else "", _reasoning(delta), choice.get("finish_reason")


def _reasoning(message: Mapping[str, Any]) -> str:
    """The reasoning text: ``reasoning`` in vLLM 0.33, ``reasoning_content`` in older versions and in llama.cpp."""
    for name in ("reasoning", "reasoning_content"):
        text = message.get(name)
        if isinstance(text, str) and text:
            return text
    return ""


def _word_near_start(text: str, labels: LabelSet) -> LabelName | None:
    found = labels.upper_case_word.search(text.lstrip(), 0, _NEAR_START_CHARS + labels.longest)
    return label_named(found.group(1)) if found else None


def _last_word(text: str, labels: LabelSet) -> LabelName | None:
    found = labels.upper_case_word.findall(text) or labels.any_case_word.findall(text)
    return label_named(found[-1].upper()) if found else None


def _first_choice(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = payload.get("choices")
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _generated_tokens(choice: Mapping[str, Any]) -> Sequence[GeneratedToken]:
    """The tokens of a choice that was asked for with ``logprobs``; none if the server gave none."""
    content = _mapping(choice.get("logprobs")).get("content")
    return [_generated_token(_mapping(entry)) for entry in content] if isinstance(content, list) else []


def _generated_token(entry: Mapping[str, Any]) -> GeneratedToken:
    listed = entry.get("top_logprobs")
    candidates = list(_candidates(listed if isinstance(listed, list) else []))
    text = entry.get("token")
    if not any(candidate == text for candidate, _ in candidates):
        candidates += _candidates([entry])
    return GeneratedToken(text if isinstance(text, str) else "", candidates)


def _candidates(entries: Sequence[Any]) -> Iterator[tuple[str, float]]:
    for entry in map(_mapping, entries):
        token, logprob = entry.get("token"), entry.get("logprob")
        if isinstance(token, str) and isinstance(logprob, (int, float)):
            yield token, float(logprob)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
