"""Files of heads: the one that ships with the package, and the one that this installation has learned, which wins.

A file is an .npz of arrays, one of which is a description as JSON; nothing in it is ever unpickled. HeadStore loads a
learned head while the router runs.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from msgspec import convert

from ai_router.routing.dial import HIGHEST, Dial
from ai_router.routing.head.arrays import packed_arrays
from ai_router.routing.head.asking import AskModel
from ai_router.routing.head.blas import take_one_thread
from ai_router.routing.head.confidence import CONFIDENCE_BINS, Stages
from ai_router.routing.head.encoder import Encoder
from ai_router.routing.head.features import BUCKETS
from ai_router.routing.head.model import Head, HeadParts, SlowModels
from ai_router.routing.head.sentences import SIZE, Array, Network, SentenceVectors
from ai_router.routing.head.watching import FileWatch
from ai_router.routing.verdict import LABELS

log = logging.getLogger(__name__)

HEAD_FILE = "head.npz"
FORMAT = 3


class HeadUnusable(ValueError):
    """A file that cannot be used as a head; the message says why."""


def pack_head(parts: HeadParts) -> bytes:
    """The content of a head's file. The same head gives the same bytes.

    Rows of zeros are left out, weights are stored as float16.
    """
    description = {
        "format": FORMAT,
        "encoder": encoder_id(),
        "bias": list(parts.bias),
        "stages": asdict(parts.stages),
        "asks_bias": parts.asks.bias,
        "dial": None if parts.dial is None else asdict(parts.dial),
        "about": parts.metadata,
    }
    arrays = {
        **_rows("weights", parts.weights),
        "vocabulary": parts.vocabulary,
        **_rows("asks", parts.asks.weights[:, None]),
        **_network("asks_network", parts.asks.network),
        **_network("meaning", parts.meaning),
    }
    if parts.difficulty is not None:
        arrays |= _rows("difficulty", parts.difficulty)
    return packed_arrays({**arrays, "description": np.frombuffer(orjson.dumps(description), np.uint8)})


def unpack_head(content: bytes, slow: SlowModels | None, *, with_difficulty: bool = True) -> Head:
    """The head in a file's content; it has made a guess. Raises HeadUnusable.

    ``with_difficulty``: whether the difficulty model is wanted, which routing does not use.
    """
    with _unusable_if_torn():
        return _make_head(_read_parts(content, with_difficulty=with_difficulty), slow)


@contextmanager
def _unusable_if_torn() -> Iterator[None]:
    try:
        yield
    except HeadUnusable:
        raise
    except Exception as problem:  # a torn archive raises whatever it likes, zlib.error and struct.error among it
        raise HeadUnusable(f"{type(problem).__name__}: {problem}") from problem


def _read_parts(content: bytes, *, with_difficulty: bool) -> HeadParts:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        description = orjson.loads(arrays["description"].tobytes())
        if description["format"] != FORMAT:
            raise HeadUnusable(f"format {description['format']}, not {FORMAT}")
        if description["encoder"] != encoder_id():
            raise HeadUnusable("it was made with another encoder")
        asks_network = _read_network(arrays, "asks_network", outputs=1)
        return HeadParts(
            weights=_read_rows(arrays, "weights", len(LABELS)),
            bias=description["bias"],
            vocabulary=arrays["vocabulary"],
            meaning=_read_network(arrays, "meaning", outputs=len(LABELS)),
            asks=AskModel(_read_rows(arrays, "asks", 1)[:, 0], float(description["asks_bias"]), asks_network),
            stages=convert(description["stages"], Stages),
            difficulty=_read_rows(arrays, "difficulty", 2) if with_difficulty and "difficulty" in arrays else None,
            dial=convert(description.get("dial"), Dial | None),
            metadata=description["about"],
        )


def _make_head(parts: HeadParts, slow: SlowModels | None) -> Head:
    # The check must not wait until the sentence vectors are loaded: what it examines is in the file.
    _check_head(Head(parts, None if slow is None else SlowModels(_NoVectors(), slow.encoder)))
    return Head(parts, slow)


class _NoVectors:
    """Zeros in place of sentence vectors."""

    ready = True

    def of(self, texts: Sequence[str]) -> Array:
        return np.zeros((len(texts), SIZE), np.float32)


def _load(path: Traversable | Path, *, with_difficulty: bool) -> Head:
    """The head in a file, with this package's slow models. Raises OSError or HeadUnusable.

    The encoder is unpacked meanwhile on a thread: both take a sixth of a second of a start, most of it in zlib.
    """
    content = path.read_bytes()
    with ThreadPoolExecutor(1) as pool, _unusable_if_torn():
        slow = pool.submit(packaged_slow_models)
        parts = _read_parts(content, with_difficulty=with_difficulty)
        return _make_head(parts, slow.result())


def encoder_bytes() -> bytes:
    """The content of the encoder's file, which ships with the package."""
    return files(__package__).joinpath("encoder.npz").read_bytes()


@cache
def encoder_id() -> str:
    """A digest of the encoder's file: a head is calibrated for one encoder."""
    return hashlib.blake2b(encoder_bytes(), digest_size=8).hexdigest()


@cache
def packaged_encoder() -> Encoder:
    """The encoder of this package."""
    # Matrices this small gain nothing from a second thread, and lose much where the cores are busy with requests.
    take_one_thread()
    with np.load(io.BytesIO(encoder_bytes()), allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    vocabulary = content.pop("vocabulary").tobytes().decode().split("\n")
    return Encoder(content, vocabulary)


@cache
def packaged_slow_models() -> SlowModels:
    """The encoder of this package and the sentence vectors, which load in the background."""
    return SlowModels(SentenceVectors(), packaged_encoder())


def clear_encoder_cache() -> None:
    """Drop what is cached of the encoder: its file has changed."""
    for cached in (encoder_id, packaged_encoder, packaged_slow_models):
        cached.cache_clear()


def packaged_head(*, with_difficulty: bool = True) -> Head:
    """The head that ships with the package."""
    return _load(files(__package__).joinpath(HEAD_FILE), with_difficulty=with_difficulty)


class HeadStore:
    """The head in use, ``current``. ``on_change`` is called with each new one, from the watching thread.

    ``folder`` is where a learned head is looked for, in HEAD_FILE. One that is unusable is logged, and the head before
    it stays.
    """

    def __init__(
        self, folder: Path, on_change: Callable[[Head], None] = lambda _: None, *, with_difficulty: bool = True
    ) -> None:
        self._with_difficulty = with_difficulty
        self._path = folder / HEAD_FILE
        self._on_change = on_change
        self._watch = FileWatch(self._path, self._changed)
        self.current: Head = (self._load_learned() if self._watch.exists else None) or self._packaged()

    def start(self) -> None:
        """Start watching the file."""
        self._watch.start()

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def _changed(self, there: bool) -> None:
        if not there:
            self._replace_head(self._packaged(), "the packaged one")
        elif head := self._load_learned():
            self._replace_head(head, str(self._path))

    def _replace_head(self, head: Head, origin: str) -> None:
        self.current = head
        self._on_change(head)
        log.info("Fast path: took up another head (%s)", origin)

    def _packaged(self) -> Head:
        return packaged_head(with_difficulty=self._with_difficulty)

    def _load_learned(self) -> Head | None:
        try:
            return unpack_head(self._path.read_bytes(), packaged_slow_models(), with_difficulty=self._with_difficulty)
        except (OSError, HeadUnusable) as problem:
            log.warning("Fast path: %s cannot be used, the head before it stays: %s", self._path, problem)
            return None


def _check_head(head: Head) -> None:
    """Make one guess with all models, so that a broken head is refused here and not in a request."""
    if len(head.reference) != CONFIDENCE_BINS:
        raise HeadUnusable(f"{len(head.reference)} shares of confidence, not {CONFIDENCE_BINS}")
    if head.dial is not None and len(head.dial.thresholds) != HIGHEST + 1:
        raise HeadUnusable(f"{len(head.dial.thresholds)} thresholds of quality, not {HIGHEST + 1}")
    first = head.first_guess([{"role": "user", "content": "Hello! What is it?"}], 2026)
    guess = head.second_guess(first, 2026, all_stages=True) if head.has_slow_models else first.guess
    if not all(math.isfinite(value) for value in (guess.confidence, *guess.probabilities.values(), head.threshold)):
        raise HeadUnusable("it computes what is no number")


def _rows(name: str, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The rows, of (BUCKETS, columns), that are not zero, and which these are."""
    rows = np.flatnonzero(np.any(values, axis=1)).astype(np.int32)
    return {f"{name}.rows": rows, name: values[rows].astype(np.float16)}


def _read_rows(arrays: Mapping[str, npt.NDArray[Any]], name: str, columns: int) -> npt.NDArray[np.float16]:
    rows, values = arrays[f"{name}.rows"], arrays[name]
    if values.shape != (len(rows), columns) or not np.isfinite(values).all() or rows.min(initial=0) < 0:
        raise HeadUnusable(f"{name} of another shape, or that are no numbers")
    weights = np.zeros((BUCKETS, columns), np.float16)
    weights[rows] = values
    return weights


def _network(name: str, network: Network) -> dict[str, npt.NDArray[Any]]:
    return {
        f"{name}.{layer.name}.{part}": values.astype(np.float16)
        for layer in fields(network)
        for part, values in zip(("weight", "bias"), getattr(network, layer.name), strict=True)
    }


def _read_network(arrays: Mapping[str, npt.NDArray[Any]], name: str, outputs: int) -> Network:
    def layer(of: str) -> tuple[Array, Array]:
        weight, bias = (arrays[f"{name}.{of}.{part}"].astype(np.float32) for part in ("weight", "bias"))
        if weight.ndim != 2 or bias.shape != weight.shape[1:]:
            raise HeadUnusable(f"{name} has layers of another shape")
        return weight, bias

    network = Network(layer("hidden"), layer("output"))
    if network.output[1].shape != (outputs,):
        raise HeadUnusable(f"{name} has {len(network.output[1])} outputs, not {outputs}")
    return network
