"""Heads in files: packed, refused, loaded while the router runs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import threading
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from ai_router.routing.head import store, watching
from ai_router.routing.head.confidence import CONFIDENCE_INPUTS, Stage, Stages
from ai_router.routing.head.features import BUCKETS, Excerpt
from ai_router.routing.head.model import Head, SlowModels
from ai_router.routing.head.store import (
    HeadStore,
    HeadUnusable,
    pack_head,
    packaged_encoder,
    packaged_head,
    unpack_head,
)
from tests.heads import made_head_parts

STAGE = Stage((1.0, 1.0, 1.0), (0.0,) * CONFIDENCE_INPUTS, 0.5)
HEAD = made_head_parts()


def made(**changes: Any) -> bytes:
    """A head that says MODERATE to everything, with a confidence of one half."""
    return pack_head(dataclasses.replace(HEAD, **changes))


def test_the_same_head_is_the_same_bytes() -> None:
    assert made() == made()


def test_what_was_packed_comes_out() -> None:
    head = unpack_head(made(metadata={**HEAD.metadata, "note": "x"}), None)
    assert head.metadata["note"] == "x"
    assert head.guess([{"role": "user", "content": "anything"}], 2026).label == "MODERATE"
    assert head.reference == (0.1,) * 10


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", made()[:500], b"\x80\x04N."])
def test_a_torn_or_foreign_file_is_refused(content: bytes) -> None:
    with pytest.raises(HeadUnusable):
        unpack_head(content, None)


def changed(**arrays: np.ndarray) -> bytes:
    with np.load(io.BytesIO(made()), allow_pickle=False) as stored:
        content = {name: stored[name] for name in stored.files} | arrays
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        changed(weights=np.full((1, 3), np.nan, np.float16)),
        changed(weights=np.zeros((1, 2), np.float16)),
        changed(**{"weights.rows": np.array([-1], np.int32)}),
        changed(**{"weights.rows": np.array([BUCKETS], np.int32)}),
        changed(**{"meaning.output.bias": np.zeros(2, np.float16)}),
        changed(**{"meaning.hidden.weight": np.zeros((5, 4), np.float16)}),
        made(metadata={}),
        made(stages=Stages(STAGE, STAGE, Stage((1.0, 1.0, 1.0), (0.0,) * 3, 0.5))),
    ],
    ids=[
        "not a number",
        "two columns",
        "negative row",
        "row too far",
        "two outputs",
        "reads other rows",
        "no reference",
        "a stage too short",
    ],
)
def test_a_head_that_would_fail_in_a_request_is_refused_before(content: bytes) -> None:
    with pytest.raises(HeadUnusable):
        unpack_head(content, SlowModels(NoVectors(), packaged_encoder()))


class NoVectors:
    """Sentence vectors that the check of a head must not wait for."""

    ready = False

    def of(self, texts: object) -> NoReturn:
        raise AssertionError("asked while a head is loaded")


def test_whatever_byte_of_a_file_is_broken_it_is_a_head_or_refused() -> None:
    whole = made()
    for place in range(0, len(whole), 7):
        broken = whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :]
        with contextlib.suppress(HeadUnusable):
            unpack_head(broken, None)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, description=np.array([{"format": 1}], object), rows=np.zeros(1), weights=np.zeros((1, 3)))
    with pytest.raises(HeadUnusable):
        unpack_head(path.read_bytes(), None)


def test_a_head_for_another_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = made()
    monkeypatch.setattr(store, "encoder_id", lambda: "another")
    with pytest.raises(HeadUnusable, match="another encoder"):
        unpack_head(content, None)


def test_the_learned_head_wins_over_the_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(made(metadata={**HEAD.metadata, "note": "learned"}))
    assert HeadStore(tmp_path).current.metadata["note"] == "learned"


def test_a_broken_learned_head_leaves_the_packaged_one_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "head.npz").write_bytes(b"nonsense")
    assert HeadStore(tmp_path).current.metadata == packaged_head().metadata
    assert "head.npz cannot be used" in caplog.text


def test_a_new_head_is_taken_up_while_running_and_a_broken_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "WATCH_S", 0.01)
    taken: list[Head] = []
    changed = threading.Event()

    def take(head: Head) -> None:
        taken.append(head)
        changed.set()

    heads = HeadStore(tmp_path, take)
    heads.start()
    try:
        (tmp_path / ".new").write_bytes(made(metadata={**HEAD.metadata, "note": "first"}))
        (tmp_path / ".new").replace(tmp_path / "head.npz")
        assert changed.wait(10)
        assert heads.current.metadata["note"] == "first"
        changed.clear()
        with caplog.at_level("WARNING"):
            (tmp_path / "head.npz").write_bytes(b"broken")
            assert not changed.wait(0.2)
        assert heads.current.metadata["note"] == "first"
        (tmp_path / "head.npz").unlink()
        assert changed.wait(10)
        assert heads.current.metadata == packaged_head().metadata
    finally:
        heads.close()
    assert len(taken) == 2


def test_the_encoder_is_there_and_tells_three_labels() -> None:
    assert packaged_encoder().logits(Excerpt(("hello",), "", 5)).shape == (3,)
