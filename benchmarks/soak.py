"""A soak test: fifty clients and every fault that the fake backends know, for minutes.

``make soak`` runs it for 180 s. Every request must end, with an answer or with an error that says so; a broken stream
must not end like a whole one; and after a warm-up the numbers of descriptors and threads and the memory must not grow.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.extras import laboratory
from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, DONE, SEARCH, chunk, classifies, event, finds, says
from tests.fakes.process import Holdings, holdings, idle, worker_of
from tests.fakes.router import RunningRouter, eventually
from tests.fakes.upstream import Hang, Plain, Recorded, Reply, Slam, Stream

CLIENTS = 50
MODELS = ("auto", "auto", "auto", "primary", "xai", "enrich")
LEAVING = 0.15
CANCELLED = 0.05
HEALTHY = 0.7
GROWTH = 1.10
"""What is held at the end may be so many times what was held after the warm-up; a tenth is noise."""
SPARE = 12
"""So many descriptors and threads more are allowed: pools may meet their busiest moment after the warm-up."""

FIRST = chunk({"content": "first "})
FAULTS: Sequence[Reply] = (
    Hang(),
    Slam(),
    Slam(delay=0.1),
    Plain({"error": "boom"}, status=500),
    Plain({"error": "full"}, status=503),
    Plain({"error": "busy"}, status=429, headers={"retry-after-ms": "200"}),
    Plain({"error": "busy"}, status=429),
    Plain({"error": {"message": "bad"}}, status=400),
    Plain({"error": "no"}),
    Plain(raw=b"<html>"),
    Stream([]),
    Stream([], ending="hang"),
    Stream([FIRST], ending="reset"),
    Stream([FIRST], ending="truncate"),
    Stream([FIRST]),
    Stream([FIRST], ending="hang"),
    Stream([FIRST, event({"error": {"message": "OOM"}})], gap=0.01),
    Stream([FIRST, b"data: {oops\n\n", chunk({}, "stop"), DONE]),
)
SETTINGS = {
    "FAST_ROUTING": "off",
    "PRIMARY_TTFT_S": "1",
    "XAI_TTFT_S": "1",
    "PLAIN_TIMEOUT_S": "1",
    "STREAM_IDLE_S": "1",
    "CLASSIFIER_TIMEOUT_S": "1",
    "SEARCH_TIMEOUT_S": "1",
    "REQUEST_TIMEOUT_S": "20",
    "QUEUE_BUDGET_S": "3",
    "BACKOFF_S": "0.1",
    "KEEPALIVE_S": "0.5",
}
"""FAST_ROUTING is off so that the classifier is asked for the short texts here. The times are short so that each fault
comes to its end many times in three minutes. All else is as by default."""


@dataclass
class Tally:
    """What became of the requests."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str) -> None:
        """Count a request that ended in this allowed way."""
        with self.lock:
            self.counts[kind] += 1

    def fail(self, what: str) -> None:
        """Keep what was wrong with a request's end."""
        with self.lock:
            self.wrong.append(what)


def faulty(healthy: Callable[[Recorded], Reply] | Reply, dice: random.Random) -> Callable[[Recorded], Reply]:
    """The replies of a backend that has one of the faults three times out of ten."""

    def reply(request: Recorded) -> Reply:
        if dice.random() > HEALTHY:
            return dice.choice(FAULTS)
        return healthy(request) if callable(healthy) else healthy

    return reply


class Client(threading.Thread):
    """Asks until it is stopped, leaves or cancels now and then, and checks how each answer ends."""

    def __init__(self, router: RunningRouter, tally: Tally, stop: threading.Event, seed: int) -> None:
        super().__init__(name=f"client-{seed}")
        self._router = router
        self._tally = tally
        self._ending = stop
        self._dice = random.Random(seed)
        self._number = 0

    def run(self) -> None:
        """One request after the other, each on a connection of its own."""
        while not self._ending.is_set():
            self._number += 1
            stream, model = self._dice.random() < 0.6, self._dice.choice(MODELS)
            try:
                self._one(model, stream=stream)
            except (OSError, http.client.HTTPException) as problem:
                self._tally.fail(f"{type(problem).__name__} for {model}: {problem}")

    def _one(self, model: str, *, stream: bool) -> None:
        chance, name = self._dice.random(), f"{self.name}-{self._number}"
        if chance < LEAVING:
            client = RawClient(self._router.port)
            client.send_chat(stream=stream, model=model)
            self._ending.wait(self._dice.random() * 0.3)
            self._dice.choice((client.leave, client.reset))()
            self._tally.note("left")
            return
        if chance < LEAVING + CANCELLED:
            threading.Timer(self._dice.random() * 0.3, self._cancel, [name]).start()
        status, headers, body = self._router.chat(model=model, stream=stream, headers={"x-request-id": name})
        self._judge(status, headers, body, stream=stream)

    def _cancel(self, name: str) -> None:
        connection = self._router.connection()
        try:
            connection.request("POST", f"/v1/requests/{name}/cancel")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as problem:
            self._tally.fail(f"cancel: {problem}")
        finally:
            connection.close()

    def _judge(self, status: int, headers: dict[str, str], body: bytes, *, stream: bool) -> None:
        if status != 200:
            self._tally.note(f"error {status}")
            if b'"error"' not in body or "x-request-id" not in headers:
                self._tally.fail(f"{status} without the envelope: {body[:200]!r}")
        elif not stream:
            self._tally.note("answer")
            if b'"choices"' not in body:
                self._tally.fail(f"a 200 that is no answer: {body[:200]!r}")
        elif b'"error"' in body:
            self._tally.note("stream with an error")
            if DONE in body:
                self._tally.fail(f"a clean end on a dead stream: {body[-300:]!r}")
        elif DONE in body or b'"finish_reason":"stop"' in body:
            self._tally.note("stream")
        else:
            self._tally.fail(f"a stream without an end: {body[-300:]!r}")


def soak(seconds: float, clients: int, folder: Path) -> int:
    """Run it; returns the exit status."""
    dice = random.Random(4)
    words = says(*["word "] * 20, ttft=0.03, gap=0.005)
    with laboratory(folder, SETTINGS) as lab:
        lab.classifier.on(CHAT, faulty(_any_label(dice), dice))
        lab.primary.on(CHAT, faulty(words, dice))
        lab.xai.on(CHAT, faulty(words, dice))
        lab.xai.on(SEARCH, faulty(finds("Findings.", delay=0.05), dice))
        return _run(lab.router, seconds, clients)


def _any_label(dice: random.Random) -> Callable[[Recorded], Reply]:
    def reply(request: Recorded) -> Reply:
        return classifies(dice.choice(("MODERATE", "MODERATE", "COMPLEX", "ENRICH")), delay=0.02)(request)

    return reply


def _run(router: RunningRouter, seconds: float, clients: int) -> int:
    tally, stop, pid = Tally(), threading.Event(), worker_of(router)
    crowd = [Client(router, tally, stop, seed) for seed in range(clients)]
    for client in crowd:
        client.start()
    samples: list[Holdings] = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop.wait(min(seconds / 40, left))
        samples.append(holdings(pid))
    health_ms = _health_ms(router)
    stop.set()
    for client in crowd:
        client.join(60)
    stuck = sum(client.is_alive() for client in crowd)
    at_rest = eventually(lambda: idle(router), 30)
    rest = holdings(pid)
    failures = [*tally.wrong, *_growth(samples), *([f"{stuck} clients hang"] if stuck else [])]
    failures += [] if at_rest else ["requests are under way that nobody made"]
    failures += [] if worker_of(router) == pid else ["the worker was replaced"]
    failures += [line for line in router.log() if "reason of our own" in line]
    _report(tally, samples, rest, health_ms, seconds)
    for failure in failures[:20]:
        print(f"WRONG: {failure}")
    return 1 if failures else 0


def _health_ms(router: RunningRouter) -> float:
    """How long /health/live takes under the load, the median."""
    took = []
    for _ in range(20):
        started = time.monotonic()
        router.get("/health/live")
        took.append((time.monotonic() - started) * 1000)
    return statistics.median(took)


def _growth(samples: Sequence[Holdings]) -> list[str]:
    """What grew from the second quarter, after the warm-up, to the last."""
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    grown = []
    for name, spare in (("descriptors", SPARE), ("threads", SPARE), ("resident_kib", 8 * 1024)):
        first = statistics.median(getattr(sample, name) for sample in before)
        last = statistics.median(getattr(sample, name) for sample in after)
        if last > first * GROWTH + spare:
            grown.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return grown


def _report(tally: Tally, samples: Sequence[Holdings], rest: Holdings, health_ms: float, seconds: float) -> None:
    total = sum(tally.counts.values())
    print(f"{total} requests in {seconds:.0f} s: " + ", ".join(f"{n} {kind}" for kind, n in tally.counts.most_common()))
    print(f"/health/live meanwhile: {health_ms:.1f} ms (median)")
    print(f"{'':12} {'after 1/4':>10} {'1/2':>8} {'3/4':>8} {'end':>8} {'at rest':>8}")
    marks = [samples[max(0, len(samples) * part // 4 - 1)] for part in (1, 2, 3, 4)]
    for name in ("descriptors", "threads", "resident_kib"):
        row = "".join(f" {getattr(mark, name):>8}" for mark in marks)
        print(f"{name:12}  {row} {getattr(rest, name):>8}")


def main() -> int:
    """``python -m benchmarks.soak``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return soak(chosen.seconds, chosen.clients, Path(folder))


if __name__ == "__main__":
    raise SystemExit(main())
