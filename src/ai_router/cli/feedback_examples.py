"""What people have said of decisions, as examples to learn from."""

from __future__ import annotations

from ai_router.cli.common import exit_with
from ai_router.errors import StoreUnavailable
from ai_router.learning.examples import Example
from ai_router.storage.lazy_store import lazy_feedback
from ai_router.types import label_named

FEEDBACK = "feedback"
"""The source of examples that people have made."""


def feedback_examples(database_url: str) -> list[Example]:
    """What people have said of decisions (POST /v1/feedback), as examples; none where nothing was said."""
    from ai_router.storage.database import path_of  # noqa: PLC0415 - SQLAlchemy takes long to load

    if (path := path_of(database_url)) is not None and not path.exists():
        return []
    feedback = lazy_feedback(database_url)
    try:
        rows = feedback.store().examples()
    except StoreUnavailable as problem:
        exit_with(f"the feedback cannot be read: {problem.detail}")
    finally:
        feedback.close()
    return [
        Example(tuple(row["messages"]), label_named(row["label"]), FEEDBACK, f"{FEEDBACK}/{row['session_id']}")
        for row in rows
    ]
