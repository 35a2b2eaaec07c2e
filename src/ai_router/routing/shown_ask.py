"""What of the user's words was judged, for people."""

from __future__ import annotations

from collections.abc import Callable

from ai_router.types import Decision

_SHOWN_CHARS = 80
"""Of the ask that was judged, in x-router-reason."""


def shown_ask(decision: Decision, scrub: Callable[[str], str] = str) -> str:
    """The beginning of the ask that was judged, and the words that spoke for the label; empty if none was judged.

    ``scrub`` takes keys out of the ask: before it is cut, since a part of a key is too much.
    """
    if not decision.ask:
        return ""
    ask = scrub(" ".join(decision.ask.split()))
    shown = f"asked '{ask if len(ask) <= _SHOWN_CHARS else ask[: _SHOWN_CHARS - 3] + '...'}'"
    return f"{shown}, for it: {', '.join(decision.evidence)}" if decision.evidence else shown
