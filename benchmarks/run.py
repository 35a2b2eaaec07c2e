"""The command: which measurements, in which order."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cancel import cancelling
from benchmarks.extras import cold_start, gpu_memory, health_timing, session_files, strategies
from benchmarks.home_lab import STRATEGIES, home_lab
from benchmarks.loads import chunk_cost, many_streams, open_load, plain_load
from benchmarks.measure import Endpoint
from benchmarks.peers import peers
from benchmarks.report import Report
from benchmarks.rig import ROOT, scratch
from benchmarks.six import Target, six

PARTS = ("six", "strategies", "extras", "load", "streams", "peers")
_TODAY = "fast path"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="Benchmark", description=__doc__)
    parser.add_argument("--url", help="a running router, e.g. http://127.0.0.1:8080: the six, against it")
    parser.add_argument("--primary", help="its primary, to compare with, e.g. http://127.0.0.1:8000")
    parser.add_argument("--classifier", help="its classifier, for its throughput")
    parser.add_argument("--model", default="primary", help="the model id for direct calls")
    parser.add_argument("--key", default=os.environ.get("AI_ROUTER_API_KEY"), help="a key of the router")
    parser.add_argument("--log", type=Path, help="its app.log; without it its sessions are asked for their timings")
    parser.add_argument("--embedded", action="store_true", help="the six against the real embedded model, on this CPU")
    parser.add_argument("--time-scale", type=float, default=0.1, help="simulated backends take so much of real time")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1], help="parts of the simulated benchmark")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each load")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 128, 512, 1000], help="streams at once")
    parser.add_argument("-n", type=int, default=50, help="repetitions of the quick measurements")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), help="where the report goes")
    options = parser.parse_args()
    report = Report()
    print(f"{report.when}, {report.machine}\n")
    gpu_memory(report)
    if options.url:
        _running(options, report)
    elif options.embedded:
        cold_start(report, six_of=options.n)
    else:
        _simulated(options, report)
    as_json, page = report.write(options.out)
    print(f"{as_json}\n{page}")


def _running(options: argparse.Namespace, report: Report) -> None:
    def endpoint(url: str | None) -> Endpoint | None:
        return Endpoint(url, options.model) if url else None

    routed = Endpoint(options.url, "auto", options.key)
    target = Target(routed, endpoint(options.primary), endpoint(options.classifier), options.log)
    six(target, report, options.n)


def _simulated(options: argparse.Namespace, report: Report) -> None:
    print(f"simulated backends at {options.time_scale:g} of real time; see benchmarks/home_lab.py\n")
    with scratch() as folder:
        if "six" in options.only:
            with home_lab(folder / "lab", options.time_scale, {_TODAY: STRATEGIES[_TODAY]}) as lab:
                routed = Endpoint(lab.routers[_TODAY].url, "auto")
                direct = Endpoint(lab.primary.url, "m"), Endpoint(lab.classifier.url, "m")
                six(Target(routed, *direct, lab.folders[_TODAY] / "data/app.log"), report, options.n)
        if "strategies" in options.only:
            strategies(folder / "strategies", report, options.time_scale, max(4, options.n // 5))
        if "extras" in options.only:
            health_timing(folder / "health", report)
            session_files(folder / "sessions", report)
            cold_start(report)
            cancelling(report, options.n)
        if "load" in options.only:
            plain_load(folder / "plain", report, options.rounds, options.seconds)
            open_load(folder / "open", report, (50, 100, 150), 2 * options.seconds)
        if "streams" in options.only:
            chunk_cost(folder / "chunks", report, options.rounds)
            many_streams(folder / "streams", report, options.streams)
        if "peers" in options.only:
            with ExitStack() as running:

                def beside(url: str) -> object:
                    return running.enter_context(peers(url, folder / "peers", ROOT / ".benchmark-peers"))

                plain_load(folder / "field", report, options.rounds, options.seconds, beside)  # type: ignore[arg-type]
