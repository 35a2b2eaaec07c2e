"""Rows of usage: made of an outcome, and kept in a file while the database does not take them."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import IO, Any

import orjson

from ai_router.types import Cost, Outcome, Traffic


@dataclass(frozen=True, slots=True)
class Rows:
    """The row of a request, and one for each of its calls that left the house."""

    request: dict[str, Any]
    egress_rows: list[dict[str, Any]] = field(default_factory=list)


def rows_of(outcome: Outcome, cost: Cost, is_local: Callable[[str], bool]) -> Rows:
    """The rows of an outcome with its cost."""
    request = outcome.request
    answer = outcome.attempts[-1] if outcome.attempts else None
    usage = cost.usage
    at = request.timestamp.timestamp()
    common = {
        "at": at,
        "day": f"{request.timestamp.astimezone(UTC):%Y-%m-%d}",
        "client": request.client,
        "organization": request.organization,
    }
    row_id = f"{int(at * 1000):x}-{request.session_id}"
    row = common | {
        "id": row_id,
        "session_id": request.session_id,
        "route": _column_text(outcome.route, 64),
        "backend": answer.backend if answer else "",
        "model": _column_text(answer.model if answer else outcome.model or "", 256),
        "decided_by": outcome.decision.decided_by if outcome.decision else "",
        "status": outcome.status,
        "error_code": _column_text(outcome.error_code or "", 64),
        "failed": outcome.failed,
        "stream": request.stream,
        "local": answer is not None and is_local(answer.backend),
        "retries": sum(step.kind == "retry" for step in outcome.steps),
        "input_tokens": usage.input if usage else 0,
        "output_tokens": usage.output if usage else 0,
        "cached_tokens": usage.cached if usage else 0,
        "reasoning_tokens": usage.reasoning if usage else 0,
        "usage_estimated": usage.estimated if usage else False,
        "cost_usd": cost.known_usd,
        "cost_unknown": bool(cost.unknown),
        "cost_basis": ",".join(cost.basis)[:64],
        "gpu_seconds": cost.gpu_s,
        "baseline_usd": cost.baseline_usd,
        "ttft_ms": outcome.timings.get("ttft_ms"),
        "total_ms": outcome.timings["total_ms"],
        "cancel_ms": outcome.timings.get("cancel_ms"),
    }
    egress_calls = [call for call in outcome.traffic if not is_local(call.backend)]
    return Rows(row, [_egress_row(row_id, common, cost, call) for call in egress_calls])


def _egress_row(row_id: str, common: dict[str, Any], cost: Cost, call: Traffic) -> dict[str, Any]:
    call_cost = cost.by_call.get(call.call_number)
    return common | {
        "id": f"{row_id}-{call.call_number}",
        "request": row_id,
        "backend": call.backend,
        "model": _column_text(call.model, 256),
        "purpose": call.purpose,
        "bytes_sent": call.bytes_sent,
        "bytes_received": call.bytes_received,
        "input_tokens": call_cost.usage.input if call_cost else None,
        "output_tokens": call_cost.usage.output if call_cost else None,
        "cost_usd": call_cost.usd if call_cost else None,
    }


def _column_text(value: str, max_chars: int) -> str:
    """As PostgreSQL takes it: no longer than its column, and without NUL, which a client may well name a model with."""
    return value.replace("\x00", "?")[:max_chars]


_BATCH_ROWS = 500


class SpillFile:
    """One line for each request. Several processes may use the same file: it is locked while a line is put there, and
    while it is moved out of the way to be read, which takes a moment; whoever puts rows never waits for a database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, rows: Iterable[Rows]) -> None:
        """Append rows. Raises OSError."""
        lines = b"".join(orjson.dumps([row.request, row.egress_rows], default=str) + b"\n" for row in rows)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                if _lock(file, self._path):
                    # A line that a crash has cut off costs itself, and not the one after it.
                    file.write(b"\n" + lines if _ends_in_half_a_line(file) else lines)
                    return

    def take(self, save: Callable[[Sequence[Rows]], None]) -> int:
        """Hand all rows to ``save``, some at a time; how many lines were none. Raises OSError, or what ``save`` raises:
        then they stay, and those that were saved before may be handed over again."""
        self._move_away()
        lost = 0
        for claimed in sorted(self._path.parent.glob(f"{self._path.name}.*")):
            with suppress(FileNotFoundError), claimed.open("rb") as file:
                if not _lock(file, claimed, wait=False):
                    continue  # another process reads it
                lost += _save_lines(file, save)
                claimed.unlink()
        return lost

    def _move_away(self) -> None:
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            if _lock(file, self._path):
                self._path.rename(f"{self._path}.{uuid.uuid4().hex}")


def _lock(file: IO[bytes], path: Path, *, wait: bool = True) -> bool:
    """Lock an open file; False if another process has it, or has moved or deleted it meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _ends_in_half_a_line(file: IO[bytes]) -> bool:
    end = file.seek(0, os.SEEK_END)
    if not end:
        return False
    file.seek(end - 1)
    return file.read(1) != b"\n"


def _save_lines(file: IO[bytes], save: Callable[[Sequence[Rows]], None]) -> int:
    batch: list[Rows] = []
    lost = 0
    for line in file:
        rows = _parsed(line)
        if rows is not None:
            batch.append(rows)
        elif line.strip():
            lost += 1
        if len(batch) == _BATCH_ROWS:
            save(batch)
            batch = []
    save(batch)
    return lost


def _parsed(line: bytes) -> Rows | None:
    """None for a line that is none of ours: cut off by a crash, or from another hand."""
    try:
        found: Any = orjson.loads(line)
    except ValueError:
        return None
    if not (isinstance(found, list) and len(found) == 2 and isinstance(found[0], dict) and isinstance(found[1], list)):
        return None
    request, egress_rows = found
    has_ids = "id" in request and all(isinstance(row, dict) and "id" in row for row in egress_rows)
    return Rows(request, egress_rows) if has_ids else None
