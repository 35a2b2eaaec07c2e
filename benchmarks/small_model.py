"""What the packaged SmolLM2 answers to labelled prompts: for measurements that need a real model's words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson
import requests

from ai_router.embedded.start import EmbeddedModel, start_embedded

PROMPTS = Path(__file__).parents[1] / "datasets/test/everyday.jsonl"
_AT_A_TIME = 4
_TIMEOUT_S = 300.0
_SAMPLING = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}
"""As the router asks it."""


@dataclass(frozen=True, slots=True)
class SaidAnswer:
    """A prompt, its label, and the beginning of the model's answer. ``logprobs``: of its tokens."""

    prompt: str
    label: str
    answer: str
    logprobs: Sequence[float]


@contextmanager
def small_model(folder: Path) -> Iterator[EmbeddedModel]:
    """The model, running."""
    model = start_embedded(folder / "embedded.log")
    try:
        yield model
    finally:
        model.stop()


def said(
    model: EmbeddedModel, messages: Sequence[Mapping[str, Any]], tokens: int, **fields: Any
) -> tuple[str, list[float]]:
    """What it answers, and the logarithms of its tokens' probabilities. ``fields``: further ones of the body."""
    body = {"model": model.model, "messages": messages, "max_tokens": tokens, "logprobs": True, **_SAMPLING, **fields}
    answer = requests.post(
        f"{model.url}/v1/chat/completions",
        data=orjson.dumps(body),
        headers={"Authorization": f"Bearer {model.key}", "Content-Type": "application/json"},
        timeout=_TIMEOUT_S,
    )
    answer.raise_for_status()
    choice = answer.json()["choices"][0]
    found = (choice.get("logprobs") or {}).get("content") or []
    return choice["message"]["content"], [token["logprob"] for token in found]


def some_prompts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) of so many prompts, as many of each label as there are."""
    by_label: dict[str, list[tuple[str, str]]] = {}
    for line in PROMPTS.read_bytes().splitlines():
        row = orjson.loads(line)
        by_label.setdefault(row["label"], []).append((row["text"], row["label"]))
    rng = random.Random(seed)
    for found in by_label.values():
        rng.shuffle(found)
    return [one for turn in zip_longest(*by_label.values()) for one in turn if one is not None][:count]


def answers(model: EmbeddedModel, prompts: Sequence[tuple[str, str]], tokens: int) -> list[SaidAnswer]:
    """The beginnings of the answers to these prompts."""

    def one(prompt: tuple[str, str]) -> SaidAnswer:
        text, label = prompt
        return SaidAnswer(text, label, *said(model, [{"role": "user", "content": text}], tokens))

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        return list(threads.map(one, prompts))
