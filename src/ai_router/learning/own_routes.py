"""Learning an owner's routes from a few examples each.

What is learned is a direction in the space of sentence vectors: ridge regression that tells the examples from ordinary
prompts, which are a sample of those that come with the router. Some of these may belong to the route themselves, so
that they are not all taken for counter-examples: a few that are as near to the examples as those are to each other are
taken for further ones, and those that are nearer than any example is to the others do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_router.learning.examples import packaged_files, read_examples
from ai_router.providers.own_routes import OwnRoute, label_of
from ai_router.routing.head.model import Head, look_closer
from ai_router.routing.head.own_routes import RouteModels, centred
from ai_router.routing.head.sentences import Array, Vectors, meaning_of
from ai_router.routing.prompt import last_user_text
from ai_router.types import LabelName

_ORDINARY = 1_500
"""How many ordinary prompts are looked at: two to four seconds."""
_PENALTY = 0.01
_TAKEN_IN, _TAKEN_IN_WEIGHT = 8, 0.3
"""How many ordinary prompts are taken for further examples at most, and how much one counts."""
_UNLIKE_WEIGHT = 0.3
"""Of what is expressly not meant, beside all ordinary prompts together."""
_BEGINS, _OF_EXAMPLES = 2.7, 0.65
"""A route begins so many spreads above what is ordinary; or at this share of what an example gets by the others, if
that is more. Chosen on 300 prompts of three routes (docs/benchmarks.md)."""
_MOST_TRUSTED = 0.7

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LearnedRoute:
    """How a route went: of ``examples`` those that the others ``recognise``, the share of ordinary prompts that it
    would ``take``, and the labels of other routes that one of its examples is nearer to."""

    label: LabelName
    examples: int
    recognised: int
    takes: float
    confused_with: tuple[LabelName, ...]


@dataclass(frozen=True, slots=True)
class LearnedRoutes:
    """The models, and how each went."""

    models: RouteModels
    routes: tuple[LearnedRoute, ...]


class _Read:
    """Texts as their sentence vectors: each one's kept sentences, and all of them together."""

    def __init__(self, texts: Sequence[str], head: Head, vectors: Vectors) -> None:
        excerpts = (head.excerpt([{"role": "user", "content": text}]) for text in texts)
        self.sentences = [look_closer(excerpt, head.asks, vectors)[0].kept for excerpt in excerpts]
        self.meanings = np.array([meaning_of(kept) for kept in self.sentences])


def ordinary_prompts() -> list[str]:
    """Prompts of all kinds: those of one turn that come with the router. Raises FileNotFoundError."""
    examples = read_examples(packaged_files("train"))
    return [last_user_text(example.messages) for example in examples if len(example.messages) == 1]


def learn_routes(
    routes: Mapping[str, OwnRoute],
    told: Mapping[LabelName, Sequence[str]],
    ordinary: Sequence[str],
    head: Head,
    vectors: Vectors,
) -> LearnedRoutes:
    """The models of the routes. ``told``: further examples, by label, which people have given. ``ordinary``: prompts of
    all kinds; a part of them is used. Deterministic. Raises ValueError without routes."""
    if not routes:
        raise ValueError("there are no routes to learn")
    background = _Read(ordinary[:: max(len(ordinary) // _ORDINARY, 1)][:_ORDINARY], head, vectors)
    mean = background.meanings.mean(axis=0)
    read = {
        label_of(name): _Read([*route.examples, *told.get(label_of(name), ()), route.description], head, vectors)
        for name, route in routes.items()
    }
    directions = []
    for name, route in routes.items():
        own = centred(read[label_of(name)].meanings, mean)
        others = [one.meanings for label, one in read.items() if label != label_of(name)]
        unlike = [_Read(route.unlike, head, vectors).meanings] if route.unlike else []
        against = np.vstack([*others, *unlike]) if others or unlike else np.zeros((0, own.shape[1]), np.float32)
        directions.append(_Direction.fitted(own, centred(against, mean), centred(background.meanings, mean)))
    models = _models(routes, directions, background, mean)
    return LearnedRoutes(models, tuple(_report(models, index, read, background) for index in range(len(routes))))


@dataclass(frozen=True, slots=True)
class _Direction:
    """A route's model, and what each example gets of one that was made without it."""

    weights: Floats
    bias: float
    left_out: Floats

    @classmethod
    def fitted(cls, own: Array, against: Array, ordinary: Array) -> _Direction:
        every = np.ones(len(ordinary))
        first, bias = _ridge(own, np.ones(len(own)), against, ordinary, every)
        left_out = np.array([_without(index, own, against, ordinary) for index in range(len(own))])
        near = ordinary @ first + bias
        typical = float(np.median(left_out))
        counts = near < left_out.min()
        if counts.mean() <= _MOST_TRUSTED:
            counts = near < typical
        taken = [index for index in np.argsort(-near, kind="stable")[:_TAKEN_IN] if near[index] >= typical]
        weights = np.concatenate([np.ones(len(own)), np.full(len(taken), _TAKEN_IN_WEIGHT)])
        final, bias = _ridge(np.vstack([own, ordinary[taken]]), weights, against, ordinary, counts.astype(float))
        return cls(final, bias, left_out)


def _without(index: int, own: Array, against: Array, ordinary: Array) -> float:
    rest = np.delete(own, index, axis=0)
    weights, bias = _ridge(rest, np.ones(len(rest)), against, ordinary, np.ones(len(ordinary)))
    return float(own[index] @ weights + bias)


def _ridge(own: Array, own_weights: Floats, against: Array, ordinary: Array, counts: Floats) -> tuple[Floats, float]:
    """Weights (SIZE,) and bias that bring ``own`` near to 1 and the others near to -1. The examples, what is not meant,
    and the ordinary prompts have a fixed weight each, however many they are."""
    rows = np.vstack([own, against, ordinary]).astype(np.float64)
    targets = np.concatenate([np.ones(len(own)), -np.ones(len(against) + len(ordinary))])
    counted = np.maximum(counts, 1e-6)
    weights = np.concatenate(
        [
            own_weights / own_weights.sum(),
            np.full(len(against), _UNLIKE_WEIGHT / max(len(against), 1)),
            counted / counted.sum(),
        ]
    )
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    penalty = np.full(rows.shape[1], _PENALTY)
    penalty[-1] = 1e-6
    weighted = rows * weights[:, None]
    found = np.linalg.solve(weighted.T @ rows + np.diag(penalty), weighted.T @ targets)
    return found[:-1], float(found[-1])


def _models(
    routes: Mapping[str, OwnRoute], directions: Sequence[_Direction], background: _Read, mean: Array
) -> RouteModels:
    labels = tuple(label_of(name) for name in routes)
    count = len(labels)
    raw = RouteModels(
        labels,
        tuple(route.digest for route in routes.values()),
        np.array([direction.weights for direction in directions], np.float32),
        np.array([direction.bias for direction in directions], np.float32),
        np.zeros(count, np.float32),
        np.ones(count, np.float32),
        mean.astype(np.float32),
    )
    scores = np.array([raw.scores(sentences) for sentences in background.sentences])
    centre = np.median(scores, axis=0)
    # Below the middle there is nothing of the route, so that this is the spread of what is ordinary.
    spread = np.maximum(centre - np.quantile(scores, 0.16, axis=0), 1e-3)
    typical = np.array([np.median(direction.left_out) for direction in directions])
    begins = centre + np.maximum(_BEGINS * spread, _OF_EXAMPLES * (typical - centre))
    return RouteModels(
        labels, raw.digests, raw.weights, raw.bias, centre.astype(np.float32), begins.astype(np.float32), raw.mean
    )


def _report(models: RouteModels, index: int, read: Mapping[LabelName, _Read], background: _Read) -> LearnedRoute:
    label = models.labels[index]
    # The last text of a route is its description.
    nearest = [models.nearest(sentences) for sentences in read[label].sentences]
    taken = [models.nearest(sentences) for sentences in background.sentences]
    others = sorted({match.label for match in nearest if match is not None and match.matches and match.label != label})
    return LearnedRoute(
        label,
        len(read[label].sentences) - 1,
        sum(match is not None and match.matches and match.label == label for match in nearest[:-1]),
        sum(match is not None and match.matches and match.label == label for match in taken) / len(taken),
        tuple(others),
    )
