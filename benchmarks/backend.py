"""A simulated model server: it answers with the timing that it is given, and costs little itself.

One asyncio process. Of a request it reads only the length, the path and whether it wants a stream.
``python -m benchmarks.backend PORT '{"ttft_s": [0.048, 0.089], ...}'`` serves until it is ended. ``POST /_timing`` with
another timing changes how new requests are answered; streams under way end with their next chunk. ``GET /_seen`` says
what came since.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import orjson

_WORD = "lorem "


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a model takes: seconds to the first token (by chance between two), tokens a second, tokens an answer.

    ``tokens_per_s`` 0: all tokens come at once. ``per_chunk``: the tokens in a chunk of a stream. ``classifies``: the
    model thinks for all its tokens and then says a label, or says it at once where it is constrained to one.
    """

    ttft_s: tuple[float, float] = (0.0, 0.0)
    tokens_per_s: float = 0.0
    tokens: int = 50
    per_chunk: int = 1
    classifies: bool = False

    def scaled(self, factor: float) -> Timing:
        """The same, ``factor`` times as slow."""
        low, high = self.ttft_s
        return replace(self, ttft_s=(low * factor, high * factor), tokens_per_s=self.tokens_per_s / factor)

    @property
    def gap_s(self) -> float:
        """Seconds between two chunks; 0 for a model that says all at once."""
        return self.per_chunk / self.tokens_per_s if self.tokens_per_s else 0.0


INSTANT = Timing(tokens=14)
"""Answers at once."""


class Model:
    """The answers of a model with this timing, made once, and what was asked of it."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.chunks = max(1, timing.tokens // timing.per_chunk)
        self.seen = self.sent = 0
        self.left_early: list[float] = []
        """When connections ended before their answer did: seconds of the monotonic clock, which processes share."""
        usage = {"prompt_tokens": 12, "completion_tokens": timing.tokens, "total_tokens": 12 + timing.tokens}
        self.plain = _completion(_WORD * timing.tokens, usage)
        self.labels = {label: _completion(label, usage) for label in LABELS}
        found = {"type": "message", "content": [{"type": "output_text", "text": "Findings.", "annotations": []}]}
        self.search = _response(orjson.dumps({"status": "completed", "output": [found], "usage": {"input_tokens": 9}}))
        self.verdicts = {label: _framed(_event(_delta(label))) for label in LABELS}
        self.thought = _framed(_event(_delta(_WORD * timing.per_chunk, "reasoning")))
        self.chunk = _framed(_event(_delta(_WORD * timing.per_chunk)))
        self.last = _framed(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        self.last += _framed(_event({"choices": [], "usage": usage})) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def first_token_s(self) -> float:
        """How long one answer takes to begin, by chance."""
        return random.uniform(*self.timing.ttft_s)

    def whole_s(self) -> float:
        """How long a plain answer takes."""
        return self.first_token_s() + (self.chunks - 1) * self.timing.gap_s


COMPLEX_WORD, ENRICH_WORD = "prove", "today"
"""The words in a question that the simulated classifier decides by."""
LABELS = ("COMPLEX", "ENRICH", "MODERATE")


def _label(body: bytes) -> str:
    question = body.rpartition(b"user: ")[2]
    if COMPLEX_WORD.encode() in question:
        return "COMPLEX"
    return "ENRICH" if ENRICH_WORD.encode() in question else "MODERATE"


def _completion(text: str, usage: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    return _response(orjson.dumps(whole))


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


_NOT_SPOKEN = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def _delta(text: str, field: str = "content") -> object:
    return {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {field: text}}]}


def _event(payload: object) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass(slots=True)
class Simulation:
    """The model that new requests are answered by."""

    model: Model


class _Connection(asyncio.Protocol):
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._model = simulation.model
        self._received = bytearray()
        self._body_at = self._end_at = 0
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._due = 0.0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._model.left_early.append(self._loop.time())

    def data_received(self, data: bytes) -> None:
        self._received += data
        # The head is read once: a body of a megabyte comes in many portions.
        if not self._end_at and not self._read_head():
            return
        if len(self._received) < self._end_at:
            return
        head, body = bytes(self._received[: self._body_at]), bytes(self._received[self._body_at : self._end_at])
        del self._received[: self._end_at]
        self._end_at = 0
        self._answer(head, body)

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end >= 0:
            self._body_at = end + 4
            self._end_at = self._body_at + _content_length(bytes(self._received[:end]))
        return end >= 0

    def _answer(self, head: bytes, body: bytes) -> None:
        model, path = self._simulation.model, head.split(b" ", 2)[1]
        if path == b"/_timing":
            self._simulation.model = Model(timing_in(body))
            self._transport.write(_response(b"{}"))
        elif path == b"/_seen":
            seen = {"seen": model.seen, "left_early": model.left_early, "chunks": model.sent}
            self._transport.write(_response(orjson.dumps(seen)))
        elif head.startswith(b"GET"):
            self._transport.write(_response(b'{"data": []}'))
        else:
            self._begin(path, body)

    def _begin(self, path: bytes, body: bytes) -> None:
        model = self._model = self._simulation.model
        model.seen += 1
        self._busy = True
        if path.endswith(b"/responses") and b'"tools"' in body:
            self._later(model.whole_s(), lambda: self._end(model.search))
        elif not path.endswith(b"/chat/completions"):
            self._end(_NOT_SPOKEN)
        elif model.timing.classifies and b'"structured_outputs"' in body:
            self._later(model.first_token_s(), lambda: self._end(model.labels[_label(body)]))
        elif model.timing.classifies:
            verdict = model.verdicts[_label(body)]
            self._later(model.first_token_s(), lambda: self._stream(model.chunks, model.thought, verdict))
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._later(model.first_token_s(), lambda: self._stream(model.chunks, model.chunk))
        else:
            self._later(model.whole_s(), lambda: self._end(model.plain))

    def _stream(self, left: int, chunk: bytes, verdict: bytes = b"") -> None:
        model = self._model
        head = _HEAD if left == model.chunks else b""
        replaced = model is not self._simulation.model
        if left == 1 or not model.timing.gap_s or replaced:
            now = 1 if replaced else left
            model.sent += now
            self._end(head + chunk * now + verdict + model.last)
            return
        model.sent += 1
        # From one due time to the next, so that a timer that is late does not make all that follow late.
        self._due = (self._loop.time() if head else self._due) + model.timing.gap_s
        self._transport.write(head + chunk)
        self._timer = self._loop.call_at(self._due, lambda: self._stream(left - 1, chunk, verdict))

    def _end(self, data: bytes) -> None:
        self._busy = False
        self._transport.write(data)

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        if seconds:
            self._timer = self._loop.call_later(seconds, then)
        else:
            then()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve(port: int, timing: Timing) -> None:
    loop = asyncio.get_running_loop()
    simulation = Simulation(Model(timing))
    server = await loop.create_server(lambda: _Connection(simulation), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def arguments(timing: Timing) -> str:
    """A timing as JSON, for the command line and for ``/_timing``."""
    return orjson.dumps(asdict(timing)).decode()


def timing_in(text: str | bytes) -> Timing:
    """The timing that this JSON has."""
    given = orjson.loads(text)
    return Timing(**{**given, "ttft_s": tuple(given["ttft_s"])})


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), timing_in(sys.argv[2])))
