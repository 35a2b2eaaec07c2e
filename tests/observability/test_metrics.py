"""The metrics of one process, and of several together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from prometheus_client import Counter

from ai_router.observability.metrics import Metrics, unlabelled


def samples(exposition: bytes, name: str) -> dict[str, float]:
    found = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", exposition.decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def test_a_gauge_is_read_when_it_is_scraped() -> None:
    metrics, depth = Metrics(), [1.0]
    metrics.watch("depth", "how deep", unlabelled(lambda: depth[0]))
    assert samples(metrics.exposition(), "depth") == {"": 1.0}
    depth[0] = 2.0
    assert samples(metrics.exposition(), "depth") == {"": 2.0}


def test_a_gauge_with_labels_has_a_child_for_each() -> None:
    metrics = Metrics()
    metrics.watch("up", "who is", lambda: [(("a",), 1.0), (("b",), 0.0)], ["backend"])
    assert samples(metrics.exposition(), "up") == {'{backend="a"}': 1.0, '{backend="b"}': 0.0}


def test_a_single_process_tells_of_itself() -> None:
    metrics = Metrics()
    assert samples(metrics.exposition(), "process_resident_memory_bytes")
    Counter("things", "x", registry=metrics.registry).inc()
    assert samples(metrics.exposition(), "things_total") == {"": 1.0}


_WORKER = """
import os, sys, pathlib
from prometheus_client import Counter, Histogram
from ai_router.observability.metrics import Metrics, forget_worker, unlabelled
folder = pathlib.Path(sys.argv[1])
metrics = Metrics(folder)
Counter("asked", "x", ["route"], registry=metrics.registry).labels("primary").inc(int(sys.argv[2]))
Histogram("took", "x", buckets=(1, 2), registry=metrics.registry).observe(1.5)
metrics.watch("open_now", "x", unlabelled(lambda: 5.0), mode="livesum")
metrics.watch("worst", "x", unlabelled(lambda: float(sys.argv[2])), mode="livemax")
text = metrics.exposition()
if sys.argv[3] == "tell":
    sys.stdout.buffer.write(text)
else:
    forget_worker(os.getpid(), folder)
"""


def worker(folder: Path, count: int, then: str) -> bytes:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", _WORKER, str(folder), str(count), then]
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


def test_whichever_worker_is_scraped_tells_of_all(tmp_path: Path) -> None:
    worker(tmp_path, 3, "die")
    exposition = worker(tmp_path, 4, "tell")
    assert samples(exposition, "asked_total") == {'{route="primary"}': 7.0}
    assert samples(exposition, "took_count") == {"": 2.0}
    assert samples(exposition, "took_bucket")['{le="2.0"}'] == 2.0


def test_gauges_of_a_worker_that_has_ended_do_not_count(tmp_path: Path) -> None:
    worker(tmp_path, 9, "die")
    exposition = worker(tmp_path, 4, "tell")
    assert samples(exposition, "open_now") == {"": 5.0}
    assert samples(exposition, "worst") == {"": 4.0}
