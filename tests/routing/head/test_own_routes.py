"""An owner's routes in a file: near to what, packed, refused, and taken up while the router runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.routing.head import watching
from ai_router.routing.head.own_routes import (
    NO_ROUTES,
    ROUTES_FILE,
    SURE,
    OwnMatch,
    RouteModels,
    RoutesUnusable,
    pack_routes,
    unpack_routes,
)
from ai_router.routing.head.own_store import OwnRoutesStore
from ai_router.routing.head.sentences import SIZE, Array
from tests.fakes.router import eventually


def axis(*numbers: int) -> Array:
    """A sentence vector that points along these axes."""
    vector = np.zeros(SIZE, np.float32)
    vector[list(numbers)] = 1
    return vector / np.linalg.norm(vector)


MODELS = RouteModels(
    labels=("CODE", "LEGAL"),
    digests=("c", "l"),
    weights=np.array([axis(0), axis(1)]),
    bias=np.zeros(2, np.float32),
    centre=np.zeros(2, np.float32),
    begins=np.array([0.5, 0.8], np.float32),
    mean=np.zeros(SIZE, np.float32),
)


def test_the_nearest_route_counts_from_what_is_ordinary_to_where_it_begins() -> None:
    assert MODELS.nearest(axis(0)[None]) == OwnMatch("CODE", 2.0)
    match = MODELS.nearest(axis(1)[None])
    assert match is not None
    assert (match.label, match.nearness) == ("LEGAL", pytest.approx(1.25))
    assert (match.sure, match.matches) == (True, True)


def test_one_sentence_among_others_is_enough() -> None:
    match = MODELS.nearest(np.array([axis(7), axis(8), axis(1)]))
    assert match is not None
    assert match.label == "LEGAL"


def test_what_is_near_to_none_is_of_none() -> None:
    assert MODELS.nearest(axis(9)[None]) is None
    assert NO_ROUTES.nearest(axis(0)[None]) is None


def test_between_the_two_somebody_else_is_asked() -> None:
    match = OwnMatch("CODE", 0.9)
    assert (match.sure, match.matches) == (False, False)
    assert (OwnMatch("CODE", 1.1).sure, OwnMatch("CODE", 1.1).matches) == (False, True)
    assert OwnMatch("CODE", SURE).sure
    assert not OwnMatch("CODE", 3.0).doubted().sure
    assert OwnMatch("CODE", 1.234).reason == "like the examples of code (1.23, where 1 is enough)"


def test_a_file_holds_them_and_the_same_models_are_the_same_bytes() -> None:
    content = pack_routes(MODELS)
    assert content == pack_routes(MODELS)
    read = unpack_routes(content)
    assert (read.labels, read.digests) == (MODELS.labels, MODELS.digests)
    np.testing.assert_array_equal(read.weights, MODELS.weights)


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense",
        pack_routes(dataclasses.replace(MODELS, weights=MODELS.weights[:1])),
        pack_routes(dataclasses.replace(MODELS, begins=MODELS.centre)),
        pack_routes(dataclasses.replace(MODELS, bias=np.array([np.nan, 0], np.float32))),
        pack_routes(dataclasses.replace(MODELS, digests=("c",))),
    ],
)
def test_what_is_no_such_file_is_refused(broken: bytes) -> None:
    with pytest.raises(RoutesUnusable):
        unpack_routes(broken)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_torn_one_is_refused_or_read_as_it_was(at: int, value: int) -> None:
    content = bytearray(pack_routes(MODELS))
    content[at % len(content)] = value
    try:
        unpack_routes(bytes(content))
    except RoutesUnusable as problem:
        assert str(problem)


def test_only_routes_that_were_learned_from_what_they_say_now_are_used() -> None:
    kept = MODELS.of({"LEGAL": "l", "CODE": "another", "NEW": "n"})
    assert (kept.labels, kept.digests) == (("LEGAL",), ("l",))
    match = kept.nearest(axis(1)[None])
    assert match is not None
    assert match.label == "LEGAL"


@pytest.fixture
def store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[OwnRoutesStore]:
    caplog.set_level("INFO")
    monkeypatch.setattr(watching, "WATCH_S", 0.01)
    store = OwnRoutesStore(tmp_path)
    store.want({"CODE": "c"})
    store.start()
    yield store
    store.close()


def test_a_file_is_taken_up_while_the_router_runs_and_a_broken_one_says_so(
    store: OwnRoutesStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.current.labels == ()
    assert "Not learned yet, or changed since: code" in caplog.get_records("setup")[-1].getMessage()
    (tmp_path / ROUTES_FILE).write_bytes(pack_routes(MODELS))
    assert eventually(lambda: store.current.labels == ("CODE",))
    store.want({"CODE": "c", "LEGAL": "l"})
    assert store.current.labels == ("CODE", "LEGAL")
    (tmp_path / ROUTES_FILE).write_bytes(b"nonsense")
    assert eventually(lambda: store.current.labels == ())
    assert "routes.npz cannot be used" in caplog.text
    (tmp_path / ROUTES_FILE).write_bytes(pack_routes(MODELS))
    assert eventually(lambda: len(store.current.labels) == 2)
    (tmp_path / ROUTES_FILE).unlink()
    assert eventually(lambda: store.current.labels == ())
