"""``ab -n 250 -c 25``, as the second design asks for it: a client of somebody else's making, and of HTTP/1.0."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.loads import INSTANT, KEY, body, contenders
from benchmarks.report import Report
from benchmarks.rig import backend
from benchmarks.sections import Cell, Section

_FIGURES = {
    "complete": r"Complete requests:\s+(\d+)",
    "failed": r"Failed requests:\s+(\d+)",
    "refused": r"Non-2xx responses:\s+(\d+)",
    "requests/s": r"Requests per second:\s+([\d.]+)",
    "p50 (ms)": r"\s50%\s+(\d+)",
    "p99 (ms)": r"\s99%\s+(\d+)",
}


def figures(output: str) -> Sequence[float]:
    """What ab says, in the order of the columns; what it does not say is 0, as ab leaves out what did not happen."""
    found = (re.search(pattern, output) for pattern in _FIGURES.values())
    return [float(match[1]) if match else 0.0 for match in found]


def apache_bench(folder: Path, report: Report) -> None:
    """250 plain requests, 25 at a time, and 250 streams, of the bare hop and of the router; a word where there is no
    ab."""
    title = "ab -n 250 -c 25"
    if (ab := shutil.which("ab")) is None:
        report.add(Section(title, ("",), [("left out: there is no ab here (Debian: apache2-utils)",)]))
        return
    rows: list[Sequence[Cell]] = []
    with backend(INSTANT, folder / "instant") as model, contenders(folder, model.url) as servers:
        for kind in ("plain", "streamed"):
            asked = folder / f"{kind}.json"
            asked.write_text(body(stream=kind == "streamed"))
            for name, server in servers.items():
                report.begin(f"{title}, {name}, {kind}")
                command = [ab, "-n", "250", "-c", "25", "-l", "-p", str(asked), "-T", "application/json"]
                command += ["-H", f"Authorization: Bearer {KEY}", f"{server.url}/v1/chat/completions"]
                said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
                rows.append((f"{name}, {kind}", *figures(said)))
    report.add(Section(title, ("", *_FIGURES), rows, "ab speaks HTTP/1.0 and opens a connection for each request."))
