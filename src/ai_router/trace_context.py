"""The header ``traceparent``, read and written: the position of a request in a distributed trace.

Source: W3C Trace Context, level 1, recommendation of 2021-11-23. No I/O; the ids come from ``rng``.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SPAN_ID_BITS = 64
SAMPLED = 1
"""The flag of a trace whose spans are recorded."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The ids of a request's trace, as integers of 128 and 64 bits.

    ``parent_id``: the client's span; None if the client sent none. ``span_id``: the span of this request; None where no
    spans are made here (TRACING=off) and the client's ids are passed on. ``flags``: SAMPLED or 0.
    """

    trace_id: int
    parent_id: int | None
    span_id: int | None
    flags: int

    def call_span(self, number: int) -> int:
        """The span id of the request's call ``number``, from 1. Computed, since it is sent before the span exists."""
        return ((self.span_id or 0) + number) % (1 << _SPAN_ID_BITS) or 1

    def header(self, number: int) -> str:
        """The ``traceparent`` to send with the request's call ``number``."""
        parent = self.parent_id or 0 if self.span_id is None else self.call_span(number)
        return f"00-{self.trace_id:032x}-{parent:016x}-{self.flags:02x}"


def parse_traceparent(header: str | None) -> Trace | None:
    """The trace of a client's ``traceparent``, without a span for this request; None if the header is not valid."""
    match = _HEADER.fullmatch(header or "")
    if match is None:
        return None
    version, trace_id, parent_id, flags, extra = match.groups()
    if version == "ff" or (version == "00" and extra) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return Trace(int(trace_id, 16), int(parent_id, 16), None, int(flags, 16) & SAMPLED)


def begin_trace(header: str | None, rng: random.Random) -> Trace:
    """A trace with a new span for this request: in the client's trace if its header is valid, else in a new, sampled
    one."""
    client_trace, span_id = parse_traceparent(header), rng.getrandbits(_SPAN_ID_BITS) or 1
    if client_trace is None:
        return Trace(rng.getrandbits(128) or 1, None, span_id, SAMPLED)
    return Trace(client_trace.trace_id, client_trace.parent_id, span_id, client_trace.flags)
