"""What the beginning of a small model's answer says of the request: python -m benchmarks.first_words [PROMPTS].

Two measurements. Real: the packaged SmolLM2 answers prompts of known label, and the phrases and the probabilities of
its tokens are compared with the labels. Scripted: openings as large models write them (datasets/first_words), which
were written together with the phrases and so flatter them.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson

from ai_router.routing.first_words import first_words
from benchmarks.small_model import SaidAnswer, answers, small_model, some_prompts

OPENINGS = Path(__file__).parents[1] / "datasets/first_words/openings.jsonl"
_TOKENS = 100
_LOOKED_AT = (20, 50, 100)


def main(count: int) -> None:
    """Measure and print."""
    rows = [orjson.loads(line) for line in OPENINGS.read_bytes().splitlines()]
    _table("scripted openings", [(row["label"], _told(row["answer"])) for row in rows])
    with tempfile.TemporaryDirectory() as folder, small_model(Path(folder)) as model:
        found = answers(model, some_prompts(count), _TOKENS)
    _table("SmolLM2, by its words", [(one.label, _told(one.answer)) for one in found])
    _table("SmolLM2, by its words and probabilities", [(one.label, _told(one.answer, one.logprobs)) for one in found])
    for tokens in _LOOKED_AT:
        areas = ", ".join(f"{label} {_auroc(found, label, tokens):.3f}" for label in ("COMPLEX", "ENRICH"))
        print(f"improbability of the first {tokens} tokens, AUROC against MODERATE: {areas}")


def _told(answer: str, logprobs: Sequence[float] = ()) -> str:
    found = first_words(answer, logprobs)
    return "MODERATE" if found is None else found.label


def _table(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """(label, what was told) of all: how often each."""
    print(f"{title}: of {len(pairs)}")
    for (label, told), count in sorted(Counter(pairs).items()):
        print(f"  {label:9} told as {told:9} {count}")


def _auroc(found: Sequence[SaidAnswer], label: str, tokens: int) -> float:
    """How well the mean improbability of the first tokens tells this label from MODERATE; 0.5 is chance."""
    ours = [_improbability(one, tokens) for one in found if one.label == label]
    others = [_improbability(one, tokens) for one in found if one.label == "MODERATE"]
    higher = sum((a > b) + (a == b) / 2 for a in ours for b in others)
    return higher / (len(ours) * len(others))


def _improbability(one: SaidAnswer, tokens: int) -> float:
    first = one.logprobs[:tokens]
    return -sum(first) / max(1, len(first))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 210)
