"""What people have said of decisions, as examples to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.cli.common import exit_with
from ai_router.errors import StoreUnavailable
from ai_router.learning.examples import Example
from ai_router.storage.lazy_store import lazy_feedback
from ai_router.types import FeedbackVerdict, Label, label_named

TOLD, LIKED, DISLIKED = "feedback: told", "feedback: liked", "feedback: disliked"
"""The sources of examples that people have made: they said what it should have been, that it was right, or that an
answer of the primary was not good."""
FEEDBACK_WEIGHTS = {TOLD: 3.0, LIKED: 1.0, DISLIKED: 0.5}
"""Beside an example of the package, and a decision of the classifier: who names the label has thought about it; who
did not like an answer may not have liked it for other reasons than that a better model should have given it."""


def feedback_examples(database_url: str) -> list[Example]:
    """What people have said of decisions (POST /v1/feedback), as examples; none where nothing was said. Their sources
    are those of FEEDBACK_WEIGHTS."""
    from ai_router.storage.database import path_of  # noqa: PLC0415 - SQLAlchemy takes long to load

    if (path := path_of(database_url)) is not None and not path.exists():
        return []
    feedback = lazy_feedback(database_url)
    try:
        rows = feedback.store().all()
    except StoreUnavailable as problem:
        exit_with(f"the feedback cannot be read: {problem.detail}")
    finally:
        feedback.close()
    return [example for row in rows if (example := _example(row)) is not None]


def _example(row: Mapping[str, Any]) -> Example | None:
    """The example that a verdict makes; None if it tells nothing."""
    if row["label"] is not None:
        source, label = TOLD if row["verdict"] == FeedbackVerdict.SHOULD_BE else LIKED, label_named(row["label"])
    elif row["verdict"] == FeedbackVerdict.BAD and row["decided"] == Label.MODERATE:
        source, label = DISLIKED, Label.COMPLEX
    else:
        return None
    return Example(tuple(row["messages"]), label, source, f"feedback/{row['session_id']}", row["local_only"])
