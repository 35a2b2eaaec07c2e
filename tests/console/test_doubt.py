"""How sure stored decisions were, and what another threshold would have changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.console import doubt
from ai_router.console.doubt import Deciders, Doubts
from ai_router.routing.head.model import Guess
from ai_router.storage.session_reader import SessionFiles
from ai_router.types import Label

LOCAL = ("primary", "classifier")


class FakeHead:
    """Is as sure as the text says: "COMPLEX 0.7"."""

    threshold = 0.9

    def __init__(self) -> None:
        self.guessed = 0

    def guess(self, messages: Any, _year: int) -> Guess:
        self.guessed += 1
        label, confidence = messages[-1]["content"].split()[:2]
        return Guess(Label(label), {Label(label): 1.0}, float(confidence), float(confidence) >= self.threshold, "")


def write(folder: Path, number: int, text: str, **changes: Any) -> None:
    session_id = f"{number:08x}"
    route = changes.get("route", "primary")
    document = {
        "session_id": session_id,
        "timestamp": f"2026-11-29T00:00:{number:02d}+00:00",
        "request_id": f"req-{number}",
        "client": "",
        "status": "ok",
        "error": None,
        "model": "auto",
        "route": route,
        "stream": True,
        "decision": {"label": "MODERATE", "decided_by": "classifier", "confidence": 0.8},
        "steps": [{"kind": "provider_call", "backend": route}],
        "bodies": "full",
        "client_messages": [{"role": "user", "content": text}],
        "timings": {"total_ms": 900.0, "ttft_ms": 500.0, "upstream_ms": 50.0, "classification_ms": 450.0},
        "cost_usd": 0.0 if route == "primary" else 0.02,
        **changes,
    }
    (folder / f"20261129T0000{number:02d}.000000Z-{session_id}.json").write_bytes(orjson.dumps(document))


def cloud(folder: Path, number: int, text: str) -> None:
    decision = {"label": "COMPLEX", "decided_by": "classifier", "confidence": 0.8}
    write(folder, number, text, route="xai", decision=decision)


@pytest.fixture
def head() -> FakeHead:
    return FakeHead()


@pytest.fixture
def doubts(tmp_path: Path, head: FakeHead) -> Iterator[Doubts]:
    doubts = Doubts(SessionFiles(tmp_path), Deciders(lambda: head, True, lambda backend: backend in LOCAL))  # type: ignore[arg-type,return-value]
    yield doubts
    doubts.close()


def test_each_decision_is_a_point_with_what_the_head_makes_of_it_now(tmp_path: Path, doubts: Doubts) -> None:
    write(tmp_path, 1, "MODERATE 0.95 hello")
    found = doubts.report(None, 10)
    (point,) = found["data"]
    assert (found["threshold"], found["complete"]) == (0.9, True)
    assert point["guess"] == {"label": "MODERATE", "confidence": 0.95, "probabilities": {"MODERATE": 1.0}}
    assert (point["opening"], point["leaves"], point["confidence"]) == ("MODERATE 0.95 hello", False, 0.8)


def test_a_lower_threshold_moves_what_the_head_sees_otherwise(tmp_path: Path, doubts: Doubts) -> None:
    cloud(tmp_path, 1, "COMPLEX 0.95 x")
    write(tmp_path, 2, "COMPLEX 0.7 x")
    write(tmp_path, 3, "MODERATE 0.7 x")
    as_it_is, lower = doubts.replayed(None, 10, 0.9), doubts.replayed(None, 10, 0.6)
    assert as_it_is["moved"] == []
    assert lower["moved"] == [{"session_id": "00000002", "from": "primary", "to": "xai"}]
    assert (lower["leaves"], lower["cost_usd"]) == ({"before": 1, "after": 2}, {"before": 0.02, "after": 0.04})
    assert lower["asks_classifier"] == {"before": 3, "after": 0}


def test_what_is_not_guessed_in_time_comes_with_the_next_look(
    tmp_path: Path, doubts: Doubts, head: FakeHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubt, "SLICE_S", 0.0)
    for number in range(3):
        write(tmp_path, number, "MODERATE 0.7 x")
    looks = [doubts.report(None, 10) for _ in range(3)]
    assert [len(look["data"]) for look in looks] == [1, 2, 3]
    assert [look["complete"] for look in looks] == [False, False, True]


def test_what_follows_the_turn_before_stays_with_it(tmp_path: Path, doubts: Doubts) -> None:
    decision = {"label": "MODERATE", "decided_by": "conversation", "confidence": None}
    write(tmp_path, 1, "COMPLEX 0.99 go on", decision=decision)
    found = doubts.replayed(None, 10, 0.5)
    assert (found["moved"], found["asks_classifier"]) == ([], {"before": 0, "after": 0})


def test_a_turn_that_cannot_be_read_whole_is_never_sure(
    tmp_path: Path, doubts: Doubts, head: FakeHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = Guess(Label.COMPLEX, {Label.COMPLEX: 1.0}, 0.99, sure=False, reason="")
    monkeypatch.setattr(head, "guess", lambda *_: guess)
    write(tmp_path, 1, "with a picture")
    assert doubts.replayed(None, 10, 0.5)["moved"] == []


def test_nothing_that_stays_is_said_to_wait_less(tmp_path: Path, doubts: Doubts) -> None:
    cloud(tmp_path, 1, "COMPLEX 0.7 x")
    found = doubts.replayed(None, 10, 0.9)
    assert found["wait_ms"]["before"] == found["wait_ms"]["after"]


def test_without_a_classifier_nobody_is_said_to_ask_it(tmp_path: Path, head: FakeHead) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x")
    deciders = Deciders(lambda: head, False, lambda _: True)  # type: ignore[arg-type,return-value]
    doubts = Doubts(SessionFiles(tmp_path), deciders)
    assert doubts.report(None, 10)["has_classifier"] is False
    assert doubts.replayed(None, 10, 0.9)["asks_classifier"] is None
    doubts.close()


def test_a_session_is_guessed_once(tmp_path: Path, doubts: Doubts, head: FakeHead) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x")
    doubts.report(None, 10)
    doubts.replayed(None, 10, 0.5)
    assert head.guessed == 1


def test_another_head_judges_anew(tmp_path: Path) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x")
    heads = [FakeHead(), FakeHead()]
    present = heads[:1]
    doubts = Doubts(SessionFiles(tmp_path), Deciders(lambda: present[0], True, lambda _: True))  # type: ignore[arg-type,return-value]
    doubts.report(None, 10)
    present[0] = heads[1]
    doubts.report(None, 10)
    doubts.close()
    assert [head.guessed for head in heads] == [1, 1]


def test_looks_in_a_row_each_get_an_answer(tmp_path: Path, doubts: Doubts) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x")
    assert all(doubts.report(None, 10)["complete"] for _ in range(200))


def test_without_words_a_decision_is_shown_and_not_judged(tmp_path: Path, doubts: Doubts) -> None:
    write(tmp_path, 1, "", bodies="off", client_messages=[])
    assert doubts.report(None, 10)["data"][0]["guess"] is None
    found = doubts.replayed(None, 10, 0.5)
    assert (found["sessions"], found["without_text"]) == (0, 1)


@pytest.mark.parametrize("label", ["META", "EXPLICIT"])
def test_what_the_router_did_not_decide_is_no_point(tmp_path: Path, doubts: Doubts, label: str) -> None:
    write(tmp_path, 1, "x", decision={"label": label, "decided_by": label.lower(), "confidence": None})
    assert doubts.report(None, 10)["data"] == []


def test_a_client_sees_its_own(tmp_path: Path, doubts: Doubts) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x", client="key-1")
    write(tmp_path, 2, "MODERATE 0.7 x", client="key-2")
    assert [point["session_id"] for point in doubts.report("key-1", 10)["data"]] == ["00000001"]


def test_without_a_head_there_is_nothing_to_replay(tmp_path: Path) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x")
    doubts = Doubts(SessionFiles(tmp_path), Deciders(lambda: None, False, lambda _: True))
    assert doubts.report(None, 10)["threshold"] is None
    assert doubts.replayed(None, 10, 0.5)["sessions"] == 0
    doubts.close()


def test_a_file_that_is_no_session_is_passed_over(tmp_path: Path, doubts: Doubts) -> None:
    write(tmp_path, 1, "MODERATE 0.7 x")
    (tmp_path / "20261129T000002.000000Z-00000002.json").write_bytes(b'{"client": "", "decision": 3}')
    assert len(doubts.report(None, 10)["data"]) == 1
