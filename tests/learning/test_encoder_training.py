"""Making an encoder, on a model small enough for a test, and the two ways to compute it held together."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ai_router.learning.encoder_training import Recipe, forward, train_encoder
from ai_router.learning.examples import Example
from ai_router.routing.head.encoder import MAX_TOKENS, Encoder
from ai_router.routing.head.features import Excerpt, excerpt_of
from ai_router.types import Label

SIZE, WIDE, LAYERS = 24, 48, 2
WORDS = ["weather", "poem", "prove", "today", "write", "theorem", "in", "##ing", "a", "the"]
VOCABULARY = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", *WORDS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of BERT's form with random weights, as sentence-transformers stores it."""
    folder, rng = tmp_path_factory.mktemp("base"), np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    norm = {"LayerNorm.weight": np.ones(SIZE, np.float32), "LayerNorm.bias": np.zeros(SIZE, np.float32)}
    arrays = {
        "embeddings.word_embeddings.weight": drawn(len(VOCABULARY), SIZE),
        "embeddings.position_embeddings.weight": drawn(64, SIZE),
        "embeddings.token_type_embeddings.weight": drawn(2, SIZE),
        **{f"embeddings.{name}": value for name, value in norm.items()},
    }
    for index in range(LAYERS + 1):
        layer = f"encoder.layer.{index}."
        for name, shape in {
            "attention.self.query": (SIZE, SIZE),
            "attention.self.key": (SIZE, SIZE),
            "attention.self.value": (SIZE, SIZE),
            "attention.output.dense": (SIZE, SIZE),
            "intermediate.dense": (WIDE, SIZE),
            "output.dense": (SIZE, WIDE),
        }.items():
            arrays[f"{layer}{name}.weight"] = drawn(*shape)
            arrays[f"{layer}{name}.bias"] = drawn(shape[0])
        for name in ("attention.output.", "output."):
            arrays |= {f"{layer}{name}{part}": value for part, value in norm.items()}
    save_file(arrays, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def example(text: str, label: Label) -> Example:
    return Example(({"role": "user", "content": text},), label, "test", "test/0")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    kinds = {Label.ENRICH: "weather today in the", Label.MODERATE: "write a poem", Label.COMPLEX: "prove the theorem"}
    return [example(f"{text} {'a ' * (number % 3)}", label) for number in range(64) for label, text in kinds.items()]


def opened(content: bytes) -> tuple[dict[str, Any], Encoder]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    vocabulary = stored.pop("vocabulary").tobytes().decode().split("\n")
    return stored, Encoder(stored, vocabulary)


def test_it_learns_and_the_same_recipe_gives_the_same_encoder(base: Path, examples: list[Example]) -> None:
    recipe = Recipe(layers=LAYERS, epochs=8, learning_rate=3e-3)
    content = train_encoder(base, examples, [1.0] * len(examples), recipe, report=lambda _: None)
    assert content == train_encoder(base, examples, [1.0] * len(examples), recipe, report=lambda _: None)
    _, encoder = opened(content)
    predicted = [int(encoder.logits(excerpt_of(one.messages)).argmax()) for one in examples]
    right = sum(
        ("MODERATE", "COMPLEX", "ENRICH")[index] == one.label for index, one in zip(predicted, examples, strict=True)
    )
    assert right > 0.95 * len(examples)


def test_numpy_and_jax_compute_the_same(base: Path, examples: list[Example]) -> None:
    content = train_encoder(base, examples[:40], [1.0] * 40, Recipe(layers=LAYERS, epochs=1), report=lambda _: None)
    stored, encoder = opened(content)
    unrolled = {}
    for name, values in stored.items():
        if name == "tokens":
            unrolled[name] = values.astype(np.float32) * stored["tokens.scale"].astype(np.float32)[:, None]
        elif not name.endswith(".scale"):
            scale = stored.get(name.removesuffix("weight") + "scale", np.float32(1))
            unrolled[name] = values.astype(np.float32) * scale.astype(np.float32)
    for excerpt in (Excerpt(("weather today",), "", 9), Excerpt(("writing", "prove the theorem"), "", 9)):
        pieces = encoder.input_of(excerpt)
        mask = np.ones((1, len(pieces.token_ids)), np.float32)
        there = forward(unrolled, np.array([pieces.token_ids]), np.array([pieces.segments]), mask)
        assert np.allclose(np.asarray(there)[0], encoder.logits(excerpt), atol=1e-5)


def test_a_long_turn_is_read_at_both_ends_and_a_short_one_after_the_turn_before(
    base: Path, examples: list[Example]
) -> None:
    _, encoder = opened(
        train_encoder(base, examples[:40], [1.0] * 40, Recipe(layers=1, epochs=1), report=lambda _: None)
    )
    long = encoder.input_of(Excerpt(("weather " + "a " * 500 + "theorem",), "", 9))
    assert len(long.token_ids) <= MAX_TOKENS
    assert set(long.segments) == {0}
    follow_up = encoder.input_of(Excerpt(("today", "weather " * 100), "", 9))
    assert len(follow_up.token_ids) <= MAX_TOKENS
    assert follow_up.segments[-2:] == [1, 1]
