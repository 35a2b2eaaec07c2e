"""The registry of Prometheus metrics: of this process, or of all worker processes together.

With several workers each writes its metrics into files of a common folder (prometheus-client's multiprocess mode), and
whichever is scraped adds them all up. Gauges that are asked when scraped cannot work that way, so a reading is taken
into a plain gauge at each scrape, and once a second where there are others who may be scraped.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_READ_EVERY_S = 1.0

Mode = Literal["livesum", "livemax", "livemin", "livemostrecent"]
"""How a gauge's values of several processes become one; those of dead ones do not count."""

GaugeReader = Callable[[], Iterable[tuple[Sequence[str], float]]]
"""Label values and the value, for each child of a gauge."""


class Metrics:
    """All metrics of the application are made in ``registry``; ``watch`` adds gauges that are read when scraped."""

    def __init__(self, shared: Path | None = None) -> None:
        """``shared``: the folder where all workers keep their values; None: there is one worker."""
        self._shared = shared
        if shared is not None:
            # prometheus-client settles this when it is imported; later, metrics made from now on are of that kind.
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        # A second series for each child, saying when it began, which nothing here asks.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        if shared is None:
            ProcessCollector(registry=self.registry)
        self._readings: list[tuple[Gauge, GaugeReader]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="gauges", daemon=True)

    def start(self) -> None:
        """Begin to take readings for others' scrapes, where there are others."""
        if self._shared is not None:
            self._thread.start()

    def close(self) -> None:
        """Stop taking readings."""
        self._stop.set()

    def watch(
        self, name: str, text: str, reading: GaugeReader, labels: Sequence[str] = (), mode: Mode = "livesum"
    ) -> None:
        """A gauge that shows what ``reading`` says."""
        gauge = Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)
        self._readings.append((gauge, reading))

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        self._read()
        if self._shared is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _read(self) -> None:
        for gauge, reading in self._readings:
            for labels, value in reading():
                (gauge.labels(*labels) if labels else gauge).set(value)

    def _read_on(self) -> None:
        while not self._stop.wait(_READ_EVERY_S):
            self._read()


def one(value: Callable[[], float]) -> GaugeReader:
    """The reading of a gauge without labels."""
    return lambda: [((), value())]


def share_metrics(folder: Path) -> None:
    """Before the workers are forked: an empty folder for their values."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ[_FOLDER_VARIABLE] = str(folder)


def forget_worker(pid: int, folder: Path) -> None:
    """A worker has ended: its gauges are void, its counters stay."""
    multiprocess.mark_process_dead(pid, path=str(folder))  # type: ignore[no-untyped-call]
