"""How near a request is to the examples of an owner's routes, by its sentence vectors (learning/own_routes.py).

For each route a linear model says how much a sentence is like the examples. What ordinary prompts get of it, on the
whole and in their spread, makes its numbers comparable: nearness counts the spreads above the ordinary, and 1 is where
the route begins. It is no probability: five examples do not give one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import orjson

from ai_router.routing.head.arrays import packed_arrays
from ai_router.routing.head.sentences import SIZE, Array, meaning_of
from ai_router.types import LabelName

ROUTES_FILE = "routes.npz"
FORMAT = 1
MATCHES = 1.0
"""From this nearness on a request belongs to the route, if nobody else can be asked."""
SURE = 1.2
UNLIKELY = 0.8
"""Between them the classifier is asked, if there is one."""


class RoutesUnusable(ValueError):
    """A file that has no learned routes in it; the message says why."""


@dataclass(frozen=True, slots=True)
class OwnMatch:
    """The owner's route that a request is nearest to."""

    label: LabelName
    nearness: float

    @property
    def sure(self) -> bool:
        """Whether nobody else need be asked."""
        return self.nearness >= SURE

    @property
    def matches(self) -> bool:
        """Whether it belongs to the route, as far as the examples tell."""
        return self.nearness >= MATCHES

    def doubted(self) -> OwnMatch:
        """The same, but never sure: not all of the request could be read."""
        return OwnMatch(self.label, min(self.nearness, MATCHES))

    @property
    def reason(self) -> str:
        """In plain words."""
        return f"like the examples of {self.label.lower()} ({self.nearness:.2f}, where 1 is enough)"


@dataclass(frozen=True, slots=True)
class RouteModels:
    """The learned routes. ``labels``, and for each of them: ``digests`` of what it was learned from (OwnRoute.digest),
    ``weights`` (routes, SIZE) and ``bias`` (routes,) of its model, ``centre`` and ``begins`` (routes,): what ordinary
    prompts get of that, and where the route begins. ``mean``, (SIZE,): of the vectors of ordinary prompts."""

    labels: tuple[LabelName, ...]
    digests: tuple[str, ...]
    weights: Array
    bias: Array
    centre: Array
    begins: Array
    mean: Array

    def nearest(self, sentences: Array) -> OwnMatch | None:
        """The route that sentences, (sentences, SIZE), are nearest to, together or one of them; None: near to none."""
        if not self.labels:
            return None
        nearness = (self.scores(sentences) - self.centre) / (self.begins - self.centre)
        best = int(nearness.argmax())
        return OwnMatch(self.labels[best], float(nearness[best])) if nearness[best] >= UNLIKELY else None

    def scores(self, sentences: Array) -> Array:
        """What the models say, (routes,): the most of all sentences together and of each one."""
        rows = centred(np.vstack([meaning_of(sentences), sentences]), self.mean)
        result: Array = (rows @ self.weights.T + self.bias).max(axis=0)
        return result

    def of(self, wanted: Mapping[LabelName, str]) -> RouteModels:
        """Those that are ``wanted`` and were learned from what these digests say."""
        pairs = enumerate(zip(self.labels, self.digests, strict=True))
        kept = [index for index, (label, digest) in pairs if wanted.get(label) == digest]
        return RouteModels(
            tuple(self.labels[index] for index in kept),
            tuple(self.digests[index] for index in kept),
            self.weights[kept],
            self.bias[kept],
            self.centre[kept],
            self.begins[kept],
            self.mean,
        )


def centred(vectors: Array, mean: Array) -> Array:
    """Vectors without what all have in common, (rows, SIZE), of length 1."""
    shifted = vectors - mean
    result: Array = shifted / np.maximum(np.linalg.norm(shifted, axis=1, keepdims=True), 1e-6)
    return result


_NUMBERS = ("weights", "bias", "centre", "begins", "mean")
NO_ROUTES = RouteModels(
    (),
    (),
    np.zeros((0, SIZE), np.float32),
    np.zeros(0, np.float32),
    np.zeros(0, np.float32),
    np.zeros(0, np.float32),
    np.zeros(SIZE, np.float32),
)


def pack_routes(models: RouteModels) -> bytes:
    """The content of their file. The same models give the same bytes."""
    description = {"format": FORMAT, "labels": models.labels, "digests": models.digests}
    arrays = {name: getattr(models, name) for name in _NUMBERS}
    arrays["description"] = np.frombuffer(orjson.dumps(description), np.uint8)
    return packed_arrays(arrays)


def unpack_routes(content: bytes) -> RouteModels:
    """The models in a file's content. Raises RoutesUnusable."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            description = orjson.loads(arrays["description"].tobytes())
            numbers = {name: arrays[name].astype(np.float32) for name in _NUMBERS}
        models = RouteModels(tuple(description["labels"]), tuple(description["digests"]), **numbers)
        made_as = description["format"]
    except Exception as problem:  # a torn archive raises whatever it likes, zlib.error and struct.error among it
        raise RoutesUnusable(f"{type(problem).__name__}: {problem}") from problem
    if made_as != FORMAT:
        raise RoutesUnusable(f"format {made_as}, not {FORMAT}")
    _check(models)
    return models


def _check(models: RouteModels) -> None:
    count = len(models.labels)
    shapes = {"weights": (count, SIZE), "bias": (count,), "centre": (count,), "begins": (count,), "mean": (SIZE,)}
    for name, shape in shapes.items():
        values = getattr(models, name)
        if values.shape != shape or not np.isfinite(values).all():
            raise RoutesUnusable(f"{name} of another shape, or that are no numbers")
    if len(models.digests) != count or not (models.begins > models.centre).all():
        raise RoutesUnusable("it does not say where the routes begin")
