"""What telling costs: the same load with everything that is kept of requests switched off, on, and traced.

``python -m benchmarks.telling [rounds]``. The variants take turns; what counts is their ratio in one run.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack

import orjson

from benchmarks.backend import Timing
from benchmarks.load import Spec, percentile, run
from benchmarks.rig import backend, router, scratch

_TRACED = {"TRACING": "on", "LOG_FORMAT": "json"}
VARIANTS = {
    "off": {"TELEMETRY": "off"},
    "on": {},
    "on, 1 of 10 traced": {**_TRACED, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "on, all traced": _TRACED,
}
BODY = orjson.dumps({"model": "primary", "messages": [{"role": "user", "content": "hello, how are you?"}]}).decode()
_CONNECTIONS, _SECONDS = 32, 4.0


def main(rounds: int = 8) -> None:
    """Measure and print."""
    with scratch() as folder, backend(Timing(), folder) as model, ExitStack() as running:
        servers = {}
        for number, (name, settings) in enumerate(VARIANTS.items()):
            collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": model.url} if "TRACING" in settings else {}
            mine = router(folder / str(number), {"PRIMARY_URL": model.url, **settings, **collector})
            servers[name] = running.enter_context(mine)
        rates: dict[str, list[float]] = {name: [] for name in servers}
        cpu: dict[str, list[float]] = {name: [] for name in servers}
        busiest = 0.0
        for turn in range(rounds + 1):
            for name, server in servers.items():
                before = server.cpu_s()
                result = run(Spec(server.url, BODY, _CONNECTIONS, _SECONDS))
                if result.refused or result.incomplete:
                    raise RuntimeError(f"{name}: {result.refused} refused, {result.incomplete} incomplete")
                busiest = max(busiest, result.busy)
                if turn:  # the first turn warms up
                    rates[name].append(result.per_second)
                    cpu[name].append((server.cpu_s() - before) / result.answered * 1000)
        print(
            f"{_CONNECTIONS} connections, {rounds} turns of {_SECONDS:g} s; the generator used {busiest:.0%} of a core"
        )
        for name in servers:
            pairs = [mine / off for mine, off in zip(rates[name], rates["off"], strict=True)]
            print(
                f"{name:20} {statistics.median(rates[name]):6.0f} requests/s  {statistics.median(pairs):.3f} of off "
                f"(from {percentile(pairs, 0.1):.2f} to {percentile(pairs, 0.9):.2f})  "
                f"{statistics.median(cpu[name]):.2f} ms of processor a request"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
