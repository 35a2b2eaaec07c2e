"""A decision model's question and answers, and what its probabilities are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.providers.own_routes import OwnRoute
from ai_router.routing.calibration_store import CALIBRATION_FILE, CalibrationStore, pack_calibration
from ai_router.routing.decision_model import AS_THEY_ARE, Calibration, decision_body, decision_verdict
from ai_router.routing.head import watching
from ai_router.routing.labels import Labels
from ai_router.types import Label
from tests.fakes.router import eventually

OURS = Labels()
WITH_ROUTE = Labels({"code": OwnRoute(description="code", examples=("1", "2", "3", "4", "5"), backend="primary")})


def answer(probabilities: Any = None, choice: Any = "COMPLEX") -> dict[str, Any]:
    return {"answers": {"route": {"type": "choice", "choice": choice, "probabilities": probabilities}}}


def test_it_is_asked_one_question_with_a_meaning_for_each_label() -> None:
    body = orjson.loads(decision_body("a-model", "user: hello", WITH_ROUTE))
    assert (body["model"], body["state"]) == ("a-model", "user: hello")
    question = body["questions"]["route"]
    assert question["type"] == "choice"
    assert list(question["criteria"]) == ["MODERATE", "COMPLEX", "ENRICH", "CODE"]
    assert question["criteria"]["CODE"].startswith("code. For instance: 1; 2")


def test_its_probabilities_are_taken_as_they_are() -> None:
    verdict = decision_verdict(answer({"MODERATE": 0.2, "COMPLEX": 0.6, "ENRICH": 0.2}), OURS, AS_THEY_ARE)
    assert verdict is not None
    assert (verdict.label, verdict.confidence) == (Label.COMPLEX, pytest.approx(0.6))
    assert verdict.complex_share == pytest.approx(0.75)
    assert verdict.finish_reason == "decision"


def test_calibrated_another_label_may_be_likelier() -> None:
    calibration = Calibration(temperature=2.0, bias={"ENRICH": 1.0})
    verdict = decision_verdict(answer({"MODERATE": 0.2, "COMPLEX": 0.5, "ENRICH": 0.3}), OURS, calibration)
    assert verdict is not None
    assert verdict.label is Label.ENRICH


@given(
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda shares: sum(shares) > 0),
    st.floats(0.1, 10),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
def test_calibrated_probabilities_are_probabilities(shares: list[float], temperature: float, bias: list[float]) -> None:
    names = [Label.MODERATE, Label.COMPLEX, Label.ENRICH]
    found = Calibration(temperature, dict(zip(names, bias, strict=True))).applied(dict(zip(names, shares, strict=True)))
    assert sum(found.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found.values())


def test_without_probabilities_the_choice_counts_and_nothing_is_sure() -> None:
    verdict = decision_verdict(answer(None, "MODERATE"), OURS, AS_THEY_ARE)
    assert verdict is not None
    assert (verdict.label, verdict.confidence, verdict.complex_share) == (Label.MODERATE, None, None)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"answers": []},
        {"answers": {"other": {}}},
        {"error": "bad"},
        answer(None, "NOWHERE"),
        answer(None, ["COMPLEX"]),
        answer({"MODERATE": "much"}, None),
        answer({"MODERATE": 0, "COMPLEX": 0, "ENRICH": 0}, None),
        answer({"MODERATE": 2, "COMPLEX": 0.1, "ENRICH": 0.1}, None),
        answer({"MODERATE": True, "COMPLEX": 0.1, "ENRICH": 0.1}, None),
    ],
)
def test_what_is_no_answer_is_none(payload: dict[str, Any]) -> None:
    assert decision_verdict(payload, OURS, AS_THEY_ARE) is None


def test_a_calibration_is_used_as_soon_as_it_is_there_and_only_for_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "WATCH_S", 0.01)
    used: list[Calibration] = []
    store = CalibrationStore(tmp_path, "a-model", used.append)
    store.start()
    learned = Calibration(2.5, {"COMPLEX": 0.5})
    (tmp_path / CALIBRATION_FILE).write_bytes(pack_calibration("a-model", learned))
    assert eventually(lambda: used[-1] == learned)
    for broken, says in (
        (pack_calibration("another", learned), "of another model (another)"),
        (b"{}", "cannot be used"),
    ):
        (tmp_path / CALIBRATION_FILE).write_bytes(broken)
        assert eventually(lambda wanted=says: wanted in caplog.text)
        assert eventually(lambda: used[-1] == AS_THEY_ARE)
    (tmp_path / CALIBRATION_FILE).unlink()
    store.close()
    assert used[0] == AS_THEY_ARE
