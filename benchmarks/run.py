"""The command: which measurements, in which order, and the table they print."""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from benchmarks.bare_hop import bare_hop
from benchmarks.cancel import measure_cancelling
from benchmarks.lab import (
    CLASSIFICATION_S,
    COMPLEX_WORD,
    ENRICH_WORD,
    PRIMARY_TTFT_S,
    SEARCH_S,
    XAI_TTFT_S,
    Lab,
    laboratory,
)
from benchmarks.measure import Endpoint, Timed, p50, p99, text_in
from tests.fakes.personas import CHAT, says

ROUTES = {
    "MODERATE": "hello",
    "COMPLEX": f"{COMPLEX_WORD} that there are infinitely many primes",
    "ENRICH": f"what is the weather {ENRICH_WORD}?",
    "META": "### Task:\nGenerate a concise title\n<chat_history>hi</chat_history>",
}
_CLIENTS, _ROUNDS, _ROUND_S = 32, 3, 3.0
LONG = "The quick brown fox jumps over the lazy dog. " * 720  # about 8,000 tokens


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="Benchmark", description=__doc__)
    parser.add_argument("--router", help="a running router, e.g. http://127.0.0.1:8080; default: a laboratory of fakes")
    parser.add_argument("--primary", help="its primary, to compare with, e.g. http://127.0.0.1:8000")
    parser.add_argument("--model", default="primary", help="the primary's model id, for direct calls")
    parser.add_argument("--key", default=os.environ.get("AI_ROUTER_API_KEY"), help="a key of the router")
    parser.add_argument("-n", type=int, default=200, help="repetitions of the quick measurements")
    options = parser.parse_args()
    _heading()
    if options.router:
        routed = Endpoint(options.router, "auto", options.key)
        direct = Endpoint(options.primary, options.model) if options.primary else None
        _running(routed, direct, options.n)
        return
    with laboratory() as lab:
        print(
            f"laboratory: classification {CLASSIFICATION_S:g} s, primary's first token {PRIMARY_TTFT_S * 1000:g} ms, "
            f"xAI's {XAI_TTFT_S * 1000:g} ms, search {SEARCH_S:g} s\n"
        )
        direct = Endpoint(lab.primary.url, "m")
        _running(Endpoint(lab.router.url, "auto"), direct, 20)
        _overhead(lab, options.n)
        measure_cancelling(lab, 100)


def _heading() -> None:
    now = datetime.now(UTC)
    print(
        f"{now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n"
    )


def _running(routed: Endpoint, direct: Endpoint | None, repetitions: int) -> None:
    _per_route(routed)
    if direct is not None:
        _first_token(routed, direct, min(repetitions, 20))
    _long_context(routed)
    _at_once(routed)
    _health(routed)


def _per_route(routed: Endpoint) -> None:
    print("1. Each route, plain and streamed (ms; from the client)")
    print(f"   {'':9} {'plain':>8} {'first':>8} {'whole':>8}  route, decided by, speculation")
    for name, text in ROUTES.items():
        connection = routed.connect()
        plain = routed.ask(connection, text)
        stream = routed.ask(connection, text, stream=True)
        connection.close()
        told = ", ".join(stream.headers.get(f"x-router-{what}", "?") for what in ("route", "decided-by", "speculation"))
        print(f"   {name:9} {plain.whole_ms:8.0f} {stream.first_ms:8.0f} {stream.whole_ms:8.0f}  {told}")


def _first_token(routed: Endpoint, direct: Endpoint, repetitions: int) -> None:
    """Where the head decides, and where it abstains: a question without its context, another each time."""
    numbers = itertools.count(10)

    def unclear() -> str:
        return f"what about the tall one, number {next(numbers)}"

    for what, turns, text in (
        ("the head decides", 10 * repetitions, lambda: ROUTES["MODERATE"]),
        ("the head abstains, the classifier is asked", repetitions, unclear),
    ):
        print(f"\n2. First token of a MODERATE stream, {what} (ms, {turns} pairs in turn)")
        pairs = _in_turn(
            turns,
            lambda text=text: _once(direct, text(), stream=True).first_ms,
            lambda text=text: _once(routed, text(), stream=True).first_ms,
        )
        _rows(pairs, ("direct", "routed"))


def _long_context(routed: Endpoint) -> None:
    answer = _once(routed, LONG)
    said = text_in(answer) if answer.status == 200 else answer.body[:200].decode()
    took = f"HTTP {answer.status} in {answer.whole_ms:.0f} ms"
    print(f"3. Long context (8,000 tokens): {took}, {len(said)} characters back\n")


def _at_once(routed: Endpoint, clients: int = 10) -> None:
    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        answers = list(pool.map(lambda _: _once(routed, ROUTES["MODERATE"]), range(clients)))
        took_ms = (time.perf_counter() - started) * 1000
    fine, slowest = sum(answer.status == 200 for answer in answers), max(answer.whole_ms for answer in answers)
    print(f"4. {clients} requests at once: {fine} answered in {took_ms:.0f} ms (slowest {slowest:.0f})\n")


def _health(routed: Endpoint) -> None:
    connection = routed.connect()
    started = time.perf_counter()
    connection.request("GET", "/health")
    status = connection.getresponse().status
    print(f"5. GET /health: HTTP {status} in {(time.perf_counter() - started) * 1000:.0f} ms\n")
    connection.close()


def _overhead(lab: Lab, repetitions: int) -> None:
    """What the router adds where nothing has to be decided: a backend without any delay, named by the client."""
    lab.primary.on(CHAT, says("word"))
    direct, routed = Endpoint(lab.primary.url, "m"), Endpoint(lab.router.url, "primary")
    connections = direct.connect(), routed.connect()
    with bare_hop(lab.primary.url) as url:
        bare = Endpoint(url, "m")
        hop = bare.connect()
        print(f"6. Added by a bare Flask hop and by the router, plain answer (ms, {repetitions} turns)")
        turns = _in_turn(
            repetitions,
            lambda: direct.ask(connections[0], "hello").whole_ms,
            lambda: bare.ask(hop, "hello").whole_ms,
            lambda: routed.ask(connections[1], "hello").whole_ms,
        )
        _rows(turns, ("direct", "bare hop", "routed"))
        hop.close()
        print(f"   plain answers a second over {_CLIENTS} connections, {_ROUNDS} rounds in turn:", end=" ")
        rounds = [(_throughput(bare), _throughput(routed)) for _ in range(_ROUNDS)]
        print(f"bare hop {p50([a for a, _ in rounds]):.0f}, routed {p50([b for _, b in rounds]):.0f}\n")
    print(f"7. Added by the router, first token of a stream, model=primary (ms, {repetitions} turns)")
    turns = _in_turn(
        repetitions,
        lambda: direct.ask(connections[0], "hello", stream=True).first_ms,
        lambda: routed.ask(connections[1], "hello", stream=True).first_ms,
    )
    _rows(turns, ("direct", "routed"))
    for connection in connections:
        connection.close()


def _throughput(endpoint: Endpoint) -> float:
    """Answers a second in a closed loop of _CLIENTS for _ROUND_S."""
    end = time.perf_counter() + _ROUND_S

    def loop() -> int:
        connection, answers = endpoint.connect(), 0
        while time.perf_counter() < end:
            endpoint.ask(connection, "hello")
            answers += 1
        connection.close()
        return answers

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return sum(future.result() for future in [pool.submit(loop) for _ in range(_CLIENTS)]) / _ROUND_S


def _once(endpoint: Endpoint, text: str, **fields: object) -> Timed:
    connection = endpoint.connect()
    try:
        return endpoint.ask(connection, text, **fields)
    finally:
        connection.close()


def _in_turn(repetitions: int, *measures: Callable[[], float]) -> Sequence[tuple[float, ...]]:
    """Each measurement once a turn, so that a machine whose speed drifts treats all alike; some turns to warm up."""
    for _ in range(3):
        for measure in measures:
            measure()
    return [tuple(measure() for measure in measures) for _ in range(repetitions)]


def _rows(turns: Sequence[tuple[float, ...]], names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        values = [turn[index] for turn in turns]
        added = [turn[index] - turn[0] for turn in turns]
        more = f"   added p50 {statistics.median(added):8.2f}   p99 {p99(added):8.2f}" if index else ""
        print(f"   {name:9} p50 {p50(values):8.2f}   p99 {p99(values):8.2f}{more}")
    print()
