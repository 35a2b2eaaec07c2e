"""Rows of usage: made of an outcome, and kept in a file while the database does not take them.

Their columns are those of the tables in storage.database. It is not imported here, because SQLAlchemy is slow to load.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson

from ai_router.types import CallCost, Cost, Outcome, Traffic


class RowRefused(Exception):
    """The database can never take a row, because a value does not fit its type. Not shown to clients."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A row of the table ``requests``, and one of ``egress`` for each of its calls that left the local network.

    ``request``: None where that row is there already, and further calls have left.
    """

    request: dict[str, Any] | None
    egress_rows: list[dict[str, Any]] = field(default_factory=list)


def rows_of(outcome: Outcome, cost: Cost, is_local: Callable[[str], bool]) -> Rows:
    """The rows of a request that has ended. ``is_local``: whether a backend, by its name, is in the local network."""
    request = outcome.request
    answer = outcome.attempts[-1] if outcome.attempts else None
    usage = cost.usage
    at = request.timestamp.timestamp()
    common = {
        "at": at,
        "day": request.timestamp.astimezone(UTC).date().isoformat(),
        "client": request.client,
        "organization": request.organization,
    }
    row_id = row_id_of(request.timestamp, request.session_id)
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
        "confidence": outcome.decision.confidence if outcome.decision else None,
        "local_only": bool(request.local_only),
        "charged_usd": _charged_usd(outcome.reserved_usd, cost),
    }
    egress_calls = [call for call in outcome.traffic if not is_local(call.backend)]
    return Rows(
        row,
        [
            egress_row(row_id, f"{call.call_number}", common, call, cost.by_call.get(call.call_number))
            for call in egress_calls
        ],
    )


def _charged_usd(reserved_usd: float | None, cost: Cost) -> float | None:
    """What the budgets of the key are charged: the bill; all that was reserved where that is not known; None: nothing
    was reserved."""
    return None if reserved_usd is None else reserved_usd if cost.bill_usd is None else cost.bill_usd


def row_id_of(timestamp: datetime, session_id: str) -> str:
    """The id of the row of a request."""
    return f"{int(timestamp.timestamp() * 1000):x}-{session_id}"


def egress_row(
    row_id: str, number: str, common: Mapping[str, Any], call: Traffic, call_cost: CallCost | None
) -> dict[str, Any]:
    """The row of a call that left the local network. ``number``: which of the request's calls it is. ``common``: when
    it was made, and for whom."""
    return {
        **common,
        "id": f"{row_id}-{number}",
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
    """As PostgreSQL takes it: not longer than its column, and without NUL, which a client may put into ``model``."""
    return value.replace("\x00", "?")[:max_chars]


_BATCH_ROWS = 500
"""How many rows ``SpillFile.take`` hands over at once."""


class SpillFile:
    """A file of rows that the database did not take, one JSON line for each request.

    Several processes may use the same file. It is locked while rows are appended, and while it is renamed to be read.
    Both take a moment, so that ``put`` never waits for a database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, rows: Iterable[Rows]) -> None:
        """Append rows. Raises OSError, or TypeError for a number that JSON cannot have here."""
        lines = b"".join(orjson.dumps([row.request, row.egress_rows], default=str) + b"\n" for row in rows)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                if _lock(file, self._path):
                    # A crash may have left half a line at the end: begin a new one.
                    file.write(b"\n" + lines if _ends_in_half_a_line(file) else lines)
                    return

    def take(self, save: Callable[[Sequence[Rows]], None]) -> int:
        """Give all rows to ``save``, up to 500 at a time, and delete them. Returns how many lines were no rows.

        Raises OSError, or what ``save`` raises: then all rows stay, and those that were saved may come again.
        """
        self._move_away()
        lost = 0
        for claimed in sorted(self._path.parent.glob(f"{self._path.name}.*")):
            with suppress(FileNotFoundError), claimed.open("rb") as file:
                if not _lock(file, claimed, wait=False):
                    continue  # another process is reading it
                lost += _save_lines(file, save)
                claimed.unlink()
        return lost

    def _move_away(self) -> None:
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            if _lock(file, self._path):
                self._path.rename(f"{self._path}.{uuid.uuid4().hex}")


def _lock(file: IO[bytes], path: Path, *, wait: bool = True) -> bool:
    """Lock an open file. False if another process has locked it, or has renamed or deleted it meanwhile."""
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
    """The rows of a line; None for a line that a crash has cut off or that something else has written."""
    try:
        found: Any = orjson.loads(line)
    except ValueError:
        return None
    if not (isinstance(found, list) and len(found) == 2 and isinstance(found[1], list)):
        return None
    request, egress_rows = found
    if not all(isinstance(row, dict) and "id" in row for row in egress_rows):
        return None
    if request is None:
        return Rows(None, egress_rows)
    # Earlier versions have written none of these.
    earlier = {"confidence": None, "local_only": False, "charged_usd": None}
    return Rows({**earlier, **request}, egress_rows) if isinstance(request, dict) and "id" in request else None
