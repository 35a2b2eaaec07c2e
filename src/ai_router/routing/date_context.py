"""The sentence that tells a model what day it is."""

from __future__ import annotations

from datetime import datetime


def date_context(now: datetime) -> str:
    """The date, the weekday and the hour of ``now``, which must carry its time zone.

    To the hour and no finer: the sentence stands near the front of every prompt, and a backend's prefix cache is
    good only for as long as the prefix keeps its bytes.
    """
    kind = "weekend" if now.weekday() >= 5 else "weekday"
    return f"Current date: {now:%A}, {now.day} {now:%B %Y} ({kind}), between {now:%H}:00 and {now:%H}:59 {now:%Z}."
