"""One answer of the Responses API, as it is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """One answer. ``previous``: the id of the one before it; None: it was the first. ``input_json``: the input items
    of its turn, without those before. ``response_json``: the answer."""

    id: str
    client: str
    previous: str | None
    input_json: bytes
    response_json: bytes
