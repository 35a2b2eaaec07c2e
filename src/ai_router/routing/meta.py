"""Recognising META: the jobs that a chat UI runs in the background (titles, tags, follow-ups, queries...).

Facts from Open WebUI 0.12.4. It can send the job's name in a header whose name the user picks (``{{TASK}}``).
Without the header only its templates tell: one user message, "### Task:", and a second line that names the job. Its RAG
template starts the same way and is a real question, so the first line alone proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ai_router.routing.text import text_of
from ai_router.types import Message

_TASK_NAME = re.compile(r"[a-z_]+_generation|function_calling|context_compaction")
_REAL_ANSWERS = frozenset({"moa_response_generation"})

_FIRST_LINE = "### Task:"
_SECOND_LINES = (
    "Generate a concise title",
    "Generate a concise, 3-5 word title",
    "Generate 1-3 broad tags",
    "Predict 3-5 useful messages",
    "Suggest 3-5 relevant follow-up",
    "Analyze the chat history to determine the necessity of generating search queries",
    "You are an autocompletion system.",
    "Generate a detailed prompt for am image generation task",
    "Generate a detailed prompt for an image generation task",
    "Summarize the conversation history that will be compacted",
)


def task_in_headers(headers: Iterable[tuple[str, str]]) -> str | None:
    """The job that a header such as ``X-Task: title_generation`` names; any name containing "task" will do."""
    for name, value in headers:
        if "task" in name.lower():
            task = value.strip().lower()
            if _TASK_NAME.fullmatch(task) and task not in _REAL_ANSWERS:
                return task
    return None


def task_in_template(messages: Sequence[Message]) -> str | None:
    """The second line of a chat UI's background template; None for everything else."""
    if len(messages) != 1 or messages[0].get("role") != "user":
        return None
    first, _, rest = text_of(messages[0]).lstrip().partition("\n")
    if first.strip() != _FIRST_LINE:
        return None
    second = rest.partition("\n")[0].strip()
    return second if second.startswith(_SECOND_LINES) else None
