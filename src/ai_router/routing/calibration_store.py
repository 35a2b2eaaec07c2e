"""The learned calibration of a decision model, as a running router uses it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import msgspec

from ai_router.routing.decision_model import AS_THEY_ARE, Calibration
from ai_router.routing.head.watching import FileWatch

log = logging.getLogger(__name__)

CALIBRATION_FILE = "classifier.json"


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file: for which model, and the fields of a Calibration."""

    model: str
    temperature: float
    bias: dict[str, float]


def pack_calibration(model: str, calibration: Calibration) -> bytes:
    """The content of the file. ``model``: whose probabilities they are."""
    return msgspec.json.encode(_Stored(model=model, temperature=calibration.temperature, bias=dict(calibration.bias)))


class CalibrationStore:
    """Gives the calibration in CALIBRATION_FILE of ``folder`` to ``use``, at once and when the file changes.

    One that was learned for another model than ``model``, or is none, is not used, and the log says so.
    """

    def __init__(self, folder: Path, model: str, use: Callable[[Calibration], None]) -> None:
        self._model = model
        self._use = use
        self._watch = FileWatch(folder / CALIBRATION_FILE, self._changed)
        self._changed(self._watch.exists)

    def start(self) -> None:
        """Start watching the file."""
        self._watch.start()

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def _changed(self, there: bool) -> None:
        self._use(self._read() if there else AS_THEY_ARE)

    def _read(self) -> Calibration:
        try:
            found = msgspec.json.decode(self._watch.path.read_bytes(), type=_Stored)
        except (OSError, msgspec.MsgspecError) as problem:
            log.warning(
                "Classifier: %s cannot be used, its probabilities are taken as they are: %s", self._watch.path, problem
            )
            return AS_THEY_ARE
        if found.model != self._model or not (math.isfinite(found.temperature) and found.temperature > 0):
            log.warning("Classifier: %s is of another model (%s); learn it anew", self._watch.path, found.model)
            return AS_THEY_ARE
        log.info("Classifier: its probabilities are calibrated (temperature %.2f)", found.temperature)
        return Calibration(found.temperature, found.bias)
