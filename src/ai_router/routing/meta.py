"""META: recognising the background jobs of chat UIs and agents (titles, tags, summaries, follow-up questions).

Nobody waits for them, so that they are never worth a classification, a web search or a cloud call. A header can name
one, since Open WebUI can send ``{{TASK}}`` in a header whose name its user picks. Else it is known by its words
(background_jobs.toml), or looks like one: somebody asks for a title, a summary or the like *of the conversation*, and
for nothing but that. Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from msgspec import Struct, convert, field

from ai_router.routing.ask import both_ends
from ai_router.routing.prompt import text_of
from ai_router.types import Message

_READ_CHARS = 6_000
"""Of a message, half at each end: templates put what they want before or behind the conversation."""

_ENDS_CHARS = 1_200
_SHORT_PROMPT = 1_500

_LOOKS_LIKE = re.compile(
    r"\b(?:generate|create|write|provide|give|suggest|return|produce|come up with|output|reply with)\b[^.!?\n]{0,60}"
    r"\b(titles?|names?|tags|keywords|summary|follow-up questions?|search queries)\b[^.!?\n]{0,60}"
    r"\b(?:conversation|chat|thread|session|dialogue|chat history)\b"
)
_NOTHING_BUT = re.compile(
    r"\b(?:only (?:the|a|return|output|respond|reply|with)|return only|nothing else"
    r"|no (?:quotes|quotation|punctuation|explanation|additional|extra|other text)"
    r"|without (?:any |quotes|quotation|punctuation|explanation)|(?:json|tags?) only)\b"
)
_JOB_OF_WORD = {"tags": "tags", "keywords": "tags", "summary": "summary", "search queries": "query"}


class _Job(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of background_jobs.toml."""

    client: str
    job: str
    source: str
    where: Literal["system", "user"] | None = field(name="in", default=None)
    starts: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        starts = not self.starts or text.startswith(self.starts)
        return starts and all(words in text for words in self.contains)


class _Known(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    header_values: frozenset[str]
    jobs: tuple[_Job, ...]


@cache
def _known() -> _Known:
    return convert(
        tomllib.loads(files("ai_router.routing").joinpath("background_jobs.toml").read_text("utf-8")), _Known
    )


def job_in_headers(headers: Iterable[tuple[str, str]]) -> str | None:
    """The background job that a header such as ``X-Task: title_generation`` names; None if no header names one.

    Any header whose name contains "task" is read: the user of the chat UI picks its name. Its value has to be a job's.
    """
    for name, value in headers:
        if "task" in name.lower() and (job := value.strip().lower()) in _known().header_values:
            return job
    return None


def job_in_messages(messages: Sequence[Message]) -> str | None:
    """The background job that a conversation is, by the words of a client's template; None for all else.

    Only the system messages at the beginning and the last message are read. A tool's result is no job.
    """
    if not messages or messages[-1].get("role") != "user":
        return None
    last = _plain(text_of(messages[-1]))
    system = _plain(text_of(messages[0])) if messages[0].get("role") in ("system", "developer") else ""
    for job in _known().jobs:
        if (job.where != "user" and system and job.matches(system)) or (job.where != "system" and job.matches(last)):
            return job.job
    # An agent's own prompt is long, and may speak of summaries and titles.
    return (_job_by_looks(system) if len(system) <= _SHORT_PROMPT else None) or _job_by_looks(last)


def _job_by_looks(text: str) -> str | None:
    text = both_ends(text, _ENDS_CHARS)
    found = _LOOKS_LIKE.search(text)
    if found is None or not _NOTHING_BUT.search(text):
        return None
    word = found[1]
    return f"{_JOB_OF_WORD.get(word, 'follow_up' if word.startswith('follow') else 'title')}_generation"


def _plain(text: str) -> str:
    return " ".join(both_ends(text, _READ_CHARS).lower().split())
