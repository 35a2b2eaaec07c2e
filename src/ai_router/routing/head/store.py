"""Files of heads: the one that ships with the package, and the one that this installation has learned, which wins.

A file is an .npz of arrays, one of which is a description as JSON; nothing in it is ever unpickled. HeadStore loads a
learned head while the router runs: a thread looks at the file's time and size every WATCH_S seconds.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from threadpoolctl import threadpool_limits

from ai_router.routing.head.asking import AskModel
from ai_router.routing.head.encoder import Encoder
from ai_router.routing.head.features import BUCKETS
from ai_router.routing.head.model import CONFIDENCE_BINS, Head, Stage
from ai_router.routing.verdict import LABELS

log = logging.getLogger(__name__)

HEAD_FILE = "head.npz"
WATCH_S = 2.0
FORMAT = 2


class HeadUnusable(ValueError):
    """A file that cannot be used as a head; the message says why."""


def pack_head(
    weights: npt.NDArray[np.float32],
    bias: list[float],
    vocabulary: npt.NDArray[np.uint32],
    words_only: Stage,
    both: Stage,
    asks: AskModel,
    difficulty: npt.NDArray[np.float32] | None,
    metadata: Mapping[str, Any],
) -> bytes:
    """The content of a head's file. The same head gives the same bytes.

    Arguments as of Head. Rows of zeros are left out, weights are stored as float16.
    """
    rows = np.flatnonzero(np.any(weights, axis=1)).astype(np.int32)
    description = {
        "format": FORMAT,
        "encoder": encoder_id(),
        "bias": bias,
        "words_only": asdict(words_only),
        "both": asdict(both),
        "asks_bias": asks.bias,
        "about": metadata,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_array(archive, "rows", rows)
        _write_array(archive, "weights", weights[rows].astype(np.float16))
        _write_array(archive, "vocabulary", vocabulary)
        ask_rows = np.flatnonzero(asks.weights).astype(np.int32)
        _write_array(archive, "asks.rows", ask_rows)
        _write_array(archive, "asks", asks.weights[ask_rows, None].astype(np.float16))
        if difficulty is not None:
            difficulty_rows = np.flatnonzero(np.any(difficulty, axis=1)).astype(np.int32)
            _write_array(archive, "difficulty.rows", difficulty_rows)
            _write_array(archive, "difficulty", difficulty[difficulty_rows].astype(np.float16))
        _write_array(archive, "description", np.frombuffer(orjson.dumps(description), np.uint8))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a head's file holds, unpacked."""

    description: dict[str, Any]
    weights: npt.NDArray[np.float16]
    vocabulary: npt.NDArray[np.uint32]
    asks: AskModel
    difficulty: npt.NDArray[np.float16] | None


def unpack_head(content: bytes, encoder: Encoder | None, *, with_difficulty: bool = True) -> Head:
    """The head in a file's content; it has made a guess. Raises HeadUnusable.

    ``with_difficulty``: whether the difficulty model is wanted, which routing does not use.
    """
    with _unusable_if_torn():
        return _make_head(_read_contents(content, with_difficulty=with_difficulty), encoder)


@contextmanager
def _unusable_if_torn() -> Iterator[None]:
    try:
        yield
    except HeadUnusable:
        raise
    except Exception as problem:  # a torn archive raises whatever it likes, zlib.error and struct.error among it
        raise HeadUnusable(f"{type(problem).__name__}: {problem}") from problem


def _read_contents(content: bytes, *, with_difficulty: bool) -> _Contents:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        description = orjson.loads(arrays["description"].tobytes())
        if description["format"] != FORMAT:
            raise HeadUnusable(f"format {description['format']}, not {FORMAT}")
        if description["encoder"] != encoder_id():
            raise HeadUnusable("it was made with another encoder")
        weights = _dense_weights(arrays["rows"], arrays["weights"], len(LABELS))
        difficulty = None
        if with_difficulty and "difficulty" in arrays:
            difficulty = _dense_weights(arrays["difficulty.rows"], arrays["difficulty"], 2)
        asks = AskModel(_dense_weights(arrays["asks.rows"], arrays["asks"], 1)[:, 0], float(description["asks_bias"]))
        return _Contents(description, weights, arrays["vocabulary"], asks, difficulty)


def _make_head(found: _Contents, encoder: Encoder | None) -> Head:
    description = found.description
    words_only, both = (
        Stage(**{key: _as_tuple(value) for key, value in description[name].items()}) for name in ("words_only", "both")
    )
    head = Head(
        found.weights,
        description["bias"],
        found.vocabulary,
        words_only,
        both,
        encoder,
        found.asks,
        found.difficulty,
        description["about"],
    )
    _check_head(head)
    return head


def _load(path: Traversable | Path, *, with_difficulty: bool) -> Head:
    """The head in a file, with this package's encoder. Raises OSError or HeadUnusable.

    The encoder is unpacked meanwhile on a thread: both take a sixth of a second of a start, most of it in zlib.
    """
    content = path.read_bytes()
    with ThreadPoolExecutor(1) as pool, _unusable_if_torn():
        encoder = pool.submit(packaged_encoder)
        contents = _read_contents(content, with_difficulty=with_difficulty)
        return _make_head(contents, encoder.result())


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
    threadpool_limits(1, user_api="blas")
    with np.load(io.BytesIO(encoder_bytes()), allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    vocabulary = content.pop("vocabulary").tobytes().decode().split("\n")
    return Encoder(content, vocabulary)


def clear_encoder_cache() -> None:
    """Drop what is cached of the encoder: its file has changed."""
    for cached in (encoder_id, packaged_encoder):
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
        self._stop = threading.Event()
        self._version = self._file_version()
        self._thread = threading.Thread(target=self._watch, name="head-watch", daemon=True)
        self.current: Head = self._load_learned() or self._packaged()

    def start(self) -> None:
        """Start watching the file."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            version = self._file_version()
            if version == self._version:
                continue
            self._version = version
            if version is None:
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
        if self._version is None:
            return None
        try:
            return unpack_head(self._path.read_bytes(), packaged_encoder(), with_difficulty=self._with_difficulty)
        except (OSError, HeadUnusable) as problem:
            log.warning("Fast path: %s cannot be used, the head before it stays: %s", self._path, problem)
            return None

    def _file_version(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


def _check_head(head: Head) -> None:
    """Make one guess with both stages, so that a broken head is refused here and not in a request."""
    if len(head.reference) != CONFIDENCE_BINS:
        raise HeadUnusable(f"{len(head.reference)} shares of confidence, not {CONFIDENCE_BINS}")
    guess = head.guess([{"role": "user", "content": "hello"}], 2026, both_stages=True)
    if not all(math.isfinite(value) for value in (guess.confidence, *guess.probabilities.values(), head.threshold)):
        raise HeadUnusable("it computes what is no number")


def _dense_weights(rows: npt.NDArray[Any], values: npt.NDArray[Any], columns: int) -> npt.NDArray[np.float16]:
    if values.shape != (len(rows), columns) or not np.isfinite(values).all() or rows.min(initial=0) < 0:
        raise HeadUnusable("weights of another shape, or that are no numbers")
    weights = np.zeros((BUCKETS, columns), np.float16)
    weights[rows] = values
    return weights


def _write_array(archive: zipfile.ZipFile, name: str, values: npt.NDArray[Any]) -> None:
    """Write an array with a fixed date, so that equal content is equal bytes."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
