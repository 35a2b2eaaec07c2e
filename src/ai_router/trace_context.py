"""Where a request stands in a distributed trace: the traceparent header of W3C Trace Context (level 1, 2021-11-23)."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SPAN_ID_BITS = 64
SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """``parent_id`` is the client's span; ``span_id`` this request's own, or None where no spans are made here and the
    client's header just goes on."""

    trace_id: int
    parent_id: int | None
    span_id: int | None
    flags: int

    def call_span(self, number: int) -> int:
        """The span of a request's n-th call of a backend: known before it begins, without being kept anywhere."""
        return ((self.span_id or 0) + number) % (1 << _SPAN_ID_BITS) or 1

    def header(self, number: int) -> str:
        """The traceparent for a request's n-th call."""
        parent = self.parent_id or 0 if self.span_id is None else self.call_span(number)
        return f"00-{self.trace_id:032x}-{parent:016x}-{self.flags:02x}"


def parse_traceparent(header: str | None) -> Trace | None:
    """The trace of a request's header, to be passed on; None without one that is valid."""
    match = _HEADER.fullmatch(header or "")
    if match is None:
        return None
    version, trace_id, parent_id, flags, extra = match.groups()
    if version == "ff" or (version == "00" and extra) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return Trace(int(trace_id, 16), int(parent_id, 16), None, int(flags, 16) & SAMPLED)


def begin_trace(header: str | None, rng: random.Random) -> Trace:
    """A trace with a span of our own in it: the client's if it sent one, else a new one that is sampled."""
    client_trace, span_id = parse_traceparent(header), rng.getrandbits(_SPAN_ID_BITS) or 1
    if client_trace is None:
        return Trace(rng.getrandbits(128) or 1, None, span_id, SAMPLED)
    return Trace(client_trace.trace_id, client_trace.parent_id, span_id, client_trace.flags)
