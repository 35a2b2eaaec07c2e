"""What the beginning of the primary's answer says of the request: that it knows nothing new, cannot, or is not sure.

The answer is at hand while the classifier is still being asked. It is a proxy: a model that is sure of itself may be
wrong, and a small one often is (docs/benchmarks.md has what this found out and what it missed). Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from ai_router.types import Decision, Label, LabelName, route_of

FIRST_CHARS = 400
"""How much of an answer is looked at: about a hundred tokens."""
_LEAST_TOKENS = 20
"""The probabilities of fewer say nothing."""
_WORD = re.compile(r"[\w']+")
_THOUGHTS = re.compile(r"^\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
"""Of a model whose server does not keep them apart: one that thinks is often unsure meanwhile."""
_QUOTED = re.compile(r'"[^"]*"|\u201c[^\u201d]*\u201d|```.*?(?:```|\Z)', re.DOTALL)
"""What the model does not say itself: what it proposes that others say, and code."""


@dataclass(frozen=True, slots=True)
class FirstWords:
    """What an answer tells: the label that the request should have had, and why, in plain words."""

    label: LabelName
    why: str


def first_words(text: str, logprobs: Sequence[float] = (), least_logprob: float = -1.5) -> FirstWords | None:
    """What the beginning of an answer tells; None: nothing. ``logprobs``: of its tokens, where the backend tells them;
    below ``least_logprob`` on average the model hardly knows what it says."""
    own = _QUOTED.sub(" ", _THOUGHTS.sub("", text)[:FIRST_CHARS].lower().replace("\u2019", "'"))
    said = f" {' '.join(_WORD.findall(own))} "
    for what, label, phrases in _TELLS:
        if any(f" {phrase} " in said for phrase in phrases):
            return FirstWords(label, what)
    if not _THOUGHTS.match(text) and len(logprobs) >= _LEAST_TOKENS and sum(logprobs) / len(logprobs) < least_logprob:
        return FirstWords(Label.COMPLEX, "hardly knows what it says")
    return None


def reconsidered(decision: Decision, told: FirstWords) -> Decision:
    """The decision, changed by what the primary's answer tells. Nobody knows how likely that is right."""
    return replace(
        decision,
        label=told.label,
        route=route_of(told.label),
        reason=f"{decision.reason}; but the primary's answer {told.why}",
        confidence=None,
        complex_share=None,
        judged=decision.judged or decision.label,
    )


def _read_tells() -> tuple[tuple[str, LabelName, frozenset[str]], ...]:
    table = tomllib.loads(files("ai_router.routing").joinpath("first_words.toml").read_text("utf-8"))
    return tuple(
        (row["what"], Label(row["label"]), frozenset(" ".join(_WORD.findall(phrase)) for phrase in row["say"]))
        for row in table["tells"]
    )


_TELLS = _read_tells()
