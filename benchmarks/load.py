"""A load generator: one asyncio process that sends chat requests and times what comes back.

It reports how busy it was itself: a row in which it used most of a core says more about it than about the server.
``python -m benchmarks.load`` reads a specification from its standard input and prints one JSON object; ``run`` does so
in a process of its own. Below it: what the results of several loads amount to.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True, slots=True)
class Spec:
    """What to send. ``connections`` each ask again as soon as they have their answer (a closed loop), for ``seconds``.
    With ``rate`` requests arrive by chance, so many a second, whatever becomes of those before (an open loop).

    ``once``: each connection asks once; with ``begin_per_s`` they begin evenly, so many a second, else all together.
    ``body`` is sent as it is. ``more_urls``: servers that share the connections with the first, in turn.
    """

    url: str
    body: str
    connections: int = 1
    seconds: float = 3.0
    rate: float = 0.0
    once: bool = False
    begin_per_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    more_urls: Sequence[str] = ()


def body(*, stream: bool, model: str = "primary", text: str = "hello, how are you?") -> str:
    """The body of a chat request with one message."""
    messages = [{"role": "user", "content": text}]
    return orjson.dumps({"model": model, "messages": messages, **({"stream": True} if stream else {})}).decode()


@dataclass(slots=True)
class Result:
    """What came back. ``first_ms`` to the first data of a stream, ``gaps_ms`` between two reads of it.

    ``chunks`` are events, however many come in one read: a server that gathers them has relayed them all the same.
    """

    answered: int = 0
    incomplete: int = 0
    refused: int = 0
    seconds: float = 0.0
    whole_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    chunks: int = 0
    at_once: int = 0
    """The most streams that had begun and not ended at the same moment."""
    busy: float = 0.0
    """Share of a core that the generator itself used."""

    @property
    def per_second(self) -> float:
        """Whole answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0


def run(spec: Spec) -> Result:
    """Send it from a process of its own. Raises subprocess.SubprocessError if that does not end well."""
    # By standard input: an argument may have no more than 128 KiB.
    command, given = [sys.executable, "-m", "benchmarks.load"], orjson.dumps(asdict(spec))
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, input=given, timeout=spec.seconds + 300, cwd=_ROOT
    )
    return Result(**orjson.loads(ended.stdout))


_ROOT = Path(__file__).parents[1]


class _Client(asyncio.Protocol):
    """One connection. Whether an answer is whole is read from its framing: its length, or the last chunk."""

    def __init__(
        self, request: bytes, result: Result, streaming: set[_Client], ended: Callable[[_Client], None]
    ) -> None:
        self._request = request
        self._result = result
        self._streaming = streaming
        self._ended = ended
        self._clear()

    def _clear(self) -> None:
        self._received = bytearray()
        self._head_length = -1
        self._length = -1
        self._status = b""
        self._first = self._previous = 0.0
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self) -> None:
        self._clear()
        self._started = time.perf_counter()
        self.transport.write(self._request)

    def connection_lost(self, _: Exception | None) -> None:
        if self._started:
            self._result.incomplete += 1
            self._over()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        if self._head_length < 0 and not self._read_head():
            return
        if self._length < 0:
            self._note_chunk(now, data)
            if not self._received.endswith(b"0\r\n\r\n", self._head_length):
                return
            whole = self._status != b"200" or b"data: [DONE]" in self._received[-64:]
        else:
            if len(self._received) < self._head_length + self._length:
                return
            whole = True
        self._done(now, whole)

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        self._status = head[9:12]
        self._head_length = end + 4
        at = head.find(b"content-length:")
        self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else -1
        return True

    def _note_chunk(self, now: float, data: bytes) -> None:
        if b"data:" not in data:
            return
        self._result.chunks += data.count(b"data:")
        if not self._first:
            self._first = now
            self._result.first_ms.append((now - self._started) * 1000)
            self._streaming.add(self)
            self._result.at_once = max(self._result.at_once, len(self._streaming))
        else:
            self._result.gaps_ms.append((now - self._previous) * 1000)
        self._previous = now

    def _done(self, now: float, whole: bool) -> None:
        result = self._result
        if not whole:
            result.incomplete += 1
        elif self._status != b"200":
            result.refused += 1
        else:
            result.answered += 1
            result.whole_ms.append((now - self._started) * 1000)
        self._over()

    def _over(self) -> None:
        self._started = 0.0
        self._streaming.discard(self)
        self._ended(self)


def _request(spec: Spec, address: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in spec.headers.items())
    body = spec.body.encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
        f"{lines}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Generator:
    """One load under way: the clients that it has, and what they have found so far."""

    def __init__(self, spec: Spec) -> None:
        self.result = Result()
        self._spec = spec
        servers = [urlsplit(url) for url in (spec.url, *spec.more_urls)]
        self._targets = itertools.cycle([(server, _request(spec, server.netloc)) for server in servers])
        self._open, self._streaming, self._all_ended = set[_Client](), set[_Client](), asyncio.Event()
        self._over = False
        self._started = time.perf_counter()

    async def run(self) -> None:
        cpu = time.process_time()
        if self._spec.rate:
            await self._by_chance()
        else:
            await asyncio.gather(*(self._begin(number) for number in range(self._spec.connections)))
            if not self._spec.once:
                await asyncio.sleep(self._spec.seconds)
        self._over = True
        if self._open:
            await self._all_ended.wait()
        self.result.seconds = time.perf_counter() - self._started
        self.result.busy = (time.process_time() - cpu) / self.result.seconds

    async def _by_chance(self) -> None:
        # The same arrivals for each server that is asked at this rate.
        due, end, dice = self._started, self._started + self._spec.seconds, random.Random(self._spec.rate)
        tasks = []
        while (due := due + dice.expovariate(self._spec.rate)) < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self._begin()))
        await asyncio.gather(*tasks)

    async def _begin(self, number: int = 0) -> None:
        if self._spec.begin_per_s:
            await asyncio.sleep(max(0.0, self._started + number / self._spec.begin_per_s - time.perf_counter()))
        server, request = next(self._targets)
        loop, host, port = asyncio.get_running_loop(), server.hostname or "", server.port or 80
        _, client = await loop.create_connection(
            lambda: _Client(request, self.result, self._streaming, self._ended), host, port
        )
        self._open.add(client)
        self._all_ended.clear()
        client.ask()

    def _ended(self, client: _Client) -> None:
        if not (self._over or self._spec.once or self._spec.rate) and not client.transport.is_closing():
            client.ask()
            return
        self._open.discard(client)
        client.transport.close()
        if not self._open:
            self._all_ended.set()


async def _run(spec: Spec) -> Result:
    generator = _Generator(spec)
    await generator.run()
    return generator.result


BUSY = 0.8
"""Beyond this share of a core the generator waits for itself as much as for a server."""
BUSY_MARK = "!"
BUSY_NOTE = f"{BUSY_MARK} more than {BUSY:.0%} of a core: such a row is the generator's limit, not the server's."


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did with one load, and the processor seconds that it used."""

    result: Result
    cpu_s: float

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds an answered request."""
        return self.cpu_s / max(self.result.answered, 1) * 1000

    @property
    def cpu_us_a_chunk(self) -> float:
        """Processor microseconds a chunk of the streams that were answered; NaN without any."""
        return self.cpu_s / self.result.chunks * 1e6 if self.result.chunks else math.nan


Series = Sequence[Turn]
"""One server's turns under the same load, in order."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed; NaN without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def p50(values: Sequence[float]) -> float:
    """The median; NaN without any."""
    return percentile(values, 0.5)


def p99(values: Sequence[float]) -> float:
    """What one of a hundred exceeds; the largest of fewer than a hundred; NaN without any."""
    return percentile(values, 0.99)


def results(series: Series) -> list[Result]:
    """What came back, turn by turn."""
    return [turn.result for turn in series]


def rates(series: Series) -> list[float]:
    """Requests a second, turn by turn."""
    return [turn.result.per_second for turn in series]


def whole_ms(series: Series) -> list[float]:
    """How long each request took, of all turns."""
    return [ms for turn in series for ms in turn.result.whole_ms]


def cpu_ms(series: Series) -> float:
    """Processor milliseconds an answered request, median of the turns."""
    return statistics.median(turn.cpu_ms for turn in series)


def lost(series: Series) -> int:
    """Requests that had no whole answer."""
    return sum(turn.result.incomplete + turn.result.refused for turn in series)


def ratios(mine: Sequence[float], base: Sequence[float]) -> list[float]:
    """Turn by turn, so that whatever the machine does to one it does to both; without turns whose base is 0."""
    return [value / its for value, its in zip(mine, base, strict=True) if its]


def of_base(mine: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios within a turn."""
    return statistics.median(ratios(mine, base))


def busiest(results: Iterable[Result]) -> float:
    """The largest share of a core that the generator used in any of them."""
    return max((result.busy for result in results), default=0.0)


def is_doubtful(results: Iterable[Result]) -> bool:
    """Whether they say more about the generator than about the server."""
    return busiest(results) > BUSY


def generator_cell(results: Iterable[Result]) -> str:
    """The generator's share of a core for a table, marked where the row says more about it than about the server."""
    share = busiest(results)
    return f"{share:.0%}" + (f" {BUSY_MARK}" if share > BUSY else "")


if __name__ == "__main__":
    print(orjson.dumps(asdict(asyncio.run(_run(Spec(**orjson.loads(sys.stdin.buffer.read())))))).decode())
