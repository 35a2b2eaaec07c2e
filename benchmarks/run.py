"""The command ``Benchmark``: its options, and the parts that it measures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.apis import apis
from benchmarks.compare import compare, other_side
from benchmarks.conditions import eight_hours, long_history, telemetry, two_processes
from benchmarks.deciding import deciding
from benchmarks.extras import cancelling, cold_start, embedded, gpu_memory, health_timing, session_files
from benchmarks.home_lab import STRATEGIES, Target, home_lab, six, strategies
from benchmarks.loads import apache_bench, chunk_cost, many_streams, open_load, plain_load
from benchmarks.peers import PEERS, peers
from benchmarks.report import Report
from benchmarks.rig import ROOT, Endpoint, scratch
from benchmarks.shared import shared_state

_TODAY = "fast path"


@dataclass(frozen=True)
class Part:
    """One part of the simulated benchmark: what it shows, and how it is measured, given a folder and the options."""

    about: str
    measure: Callable[[Path, Report, argparse.Namespace], None]


def _six(folder: Path, report: Report, options: argparse.Namespace) -> None:
    with home_lab(folder, options.time_scale, {_TODAY: STRATEGIES[_TODAY]}) as lab:
        routed = Endpoint(lab.routers[_TODAY].url, "auto")
        direct = Endpoint(lab.primary.url, "m"), Endpoint(lab.classifier.url, "m")
        six(Target(routed, *direct, lab.folders[_TODAY] / "data/app.log"), report, options.n)


def _strategies(folder: Path, report: Report, options: argparse.Namespace) -> None:
    strategies(folder, report, options.time_scale, max(4, options.n // 5))


def _deciding(folder: Path, report: Report, options: argparse.Namespace) -> None:
    deciding(folder, report, options.n)


def _apis(folder: Path, report: Report, options: argparse.Namespace) -> None:
    apis(folder, report, options.n)


def _extras(folder: Path, report: Report, options: argparse.Namespace) -> None:
    health_timing(folder / "health", report)
    session_files(folder / "sessions", report)
    cold_start(report)
    cancelling(report, options.n)


def _load(folder: Path, report: Report, options: argparse.Namespace) -> None:
    plain_load(folder / "plain", report, options.rounds, options.seconds)
    open_load(folder / "open", report, (50, 100, 150), 2 * options.seconds)
    apache_bench(folder / "ab", report)


def _streams(folder: Path, report: Report, options: argparse.Namespace) -> None:
    chunk_cost(folder / "chunk", report, options.rounds)
    many_streams(folder / "many", report, options.streams)


def _history(folder: Path, report: Report, options: argparse.Namespace) -> None:
    long_history(folder, report, options.rounds, options.seconds)


def _hours(folder: Path, report: Report, options: argparse.Namespace) -> None:
    eight_hours(folder, report, options.rounds, options.seconds)


def _two(folder: Path, report: Report, options: argparse.Namespace) -> None:
    two_processes(folder, report, options.rounds, options.seconds)


def _shared(folder: Path, report: Report, options: argparse.Namespace) -> None:
    shared_state(folder, report, options.rounds, options.seconds, 4 * options.n)


def _telemetry(folder: Path, report: Report, options: argparse.Namespace) -> None:
    telemetry(folder, report, options.rounds, options.seconds)


def _peers(folder: Path, report: Report, options: argparse.Namespace) -> None:
    workers = options.workers
    others = partial(peers, installed=ROOT / ".benchmark-peers", wanted=options.peers, workers=workers)
    plain_load(folder / "plain", report, options.rounds, options.seconds, others, workers)
    if workers == 1:
        chunk_cost(folder / "chunk", report, options.rounds, others)
    many_streams(folder / "many", report, options.streams, others, workers)


PARTS: Mapping[str, Part] = {
    "six": Part("the first design's six: routes, throughput, long context, ten at once, first token, overhead", _six),
    "strategies": Part("from the sequential classifier to today's default: the first event of a stream", _strategies),
    "deciding": Part("the first token of a MODERATE stream, by the stage of the head that decides", _deciding),
    "apis": Part("a request in each API of clients, beside chat completions", _apis),
    "extras": Part("GET /health, session files, the cold start, cancelling phase by phase", _extras),
    "load": Part("closed loops of 1, 8 and 32 connections, an open loop and ab, beside a bare hop", _load),
    "streams": Part("the cost of a chunk, and up to a thousand streams at once, beside a bare hop", _streams),
    "history": Part("processor time of a megabyte of history, beside parsing and serialising it once", _history),
    "hours": Part("p99 with eight hours of sessions and usage on disk, beside none", _hours),
    "two": Part("two processes on this machine's cores, beside one", _two),
    "shared": Part("what sharing state adds to a request, and cancelling across routers", _shared),
    "peers": Part("load and streams again with nginx, Envoy, Portkey and LiteLLM beside; installs them", _peers),
    "telemetry": Part("what telemetry and tracing cost a plain request, beside none", _telemetry),
}
_USUAL = tuple(name for name in PARTS if name not in ("peers", "telemetry"))
"""What is measured without --only."""


def main() -> None:
    """Read the command line, measure, and write the report."""
    options = _options()
    if options.list:
        print("\n".join(f"{name:<11} {part.about}" for name, part in PARTS.items()))
        print(f"\nWithout --only: {' '.join(_USUAL)}.")
        return
    report = Report()
    print(f"{report.when}, {report.machine}\n")
    gpu_memory(report)
    if options.compare:
        with scratch() as folder:
            compare(folder, report, options.compare, options.rounds, options.seconds, options.streams)
    elif options.url:
        _running(options, report)
    elif options.embedded:
        embedded(report, options.n)
    else:
        print(f"simulated backends at {options.time_scale:g} of real time; see benchmarks/home_lab.py\n")
        for name in PARTS:
            if name in options.only:
                with scratch() as folder:
                    PARTS[name].measure(folder, report, options)
    as_json, page = report.write(options.out)
    print(f"{as_json}\n{page}")


def _options() -> argparse.Namespace:
    """What the command line says, with the defaults that depend on what is measured."""
    parser = _parser()
    options = parser.parse_args()
    options.seconds = options.seconds or (1.5 if options.compare else 3.0)
    options.streams = options.streams or ((8, 32, 1000) if options.compare else (8, 128, 512, 1000))
    if options.compare:
        try:
            options.compare = other_side(options.compare, dict(options.other_env))
        except FileNotFoundError as problem:
            parser.error(str(problem))
    return options


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="Benchmark", description="Measure what routing costs: docs/benchmarks.md.")
    parser.add_argument("--list", action="store_true", help="print the parts, and measure nothing")
    parser.add_argument("--url", help="a running router, e.g. http://127.0.0.1:8080: the six, against it")
    parser.add_argument("--primary", help="its primary, to compare with, e.g. http://127.0.0.1:8000")
    parser.add_argument("--classifier", help="its classifier, for its throughput")
    parser.add_argument("--model", default="primary", help="the model id for direct calls")
    parser.add_argument("--key", default=os.environ.get("AI_ROUTER_API_KEY"), help="a key of the router")
    parser.add_argument("--log", type=Path, help="its app.log; without it its sessions are asked for their timings")
    parser.add_argument("--embedded", action="store_true", help="the six against the real embedded model, on this CPU")
    parser.add_argument(
        "--compare", type=Path, metavar="PATH", help="another checkout after `make setup`: both in turn"
    )
    parser.add_argument(
        "--other-env",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the other checkout's router",
    )
    parser.add_argument("--time-scale", type=float, default=0.1, help="simulated backends take so much of real time")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=_USUAL, metavar="PART", help="parts: see --list")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=tuple(PEERS), help="those of the part peers")
    parser.add_argument("--workers", type=int, default=1, help="of each server of the part peers")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each load")
    parser.add_argument("--seconds", type=float, help="of each turn: 3, and 1.5 with --compare")
    parser.add_argument(
        "--streams", type=int, nargs="+", help="streams at once: 8 128 512 1000, and 8 32 1000 with --compare"
    )
    parser.add_argument("-n", type=int, default=50, help="repetitions of the quick measurements")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), help="where the report goes")
    return parser


def _running(options: argparse.Namespace, report: Report) -> None:
    def endpoint(url: str | None) -> Endpoint | None:
        return Endpoint(url, options.model) if url else None

    routed = Endpoint(options.url, "auto", options.key)
    target = Target(routed, endpoint(options.primary), endpoint(options.classifier), options.log)
    six(target, report, options.n)
