"""What the head reads of a conversation: the last user turn first, then a little of what came before. Bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ai_router.routing.prompt import text_of
from ai_router.types import Message

TURN_CHARS = 1_200
"""Of a turn, at both ends: people put the question at either."""
ANSWER_CHARS = 240


@dataclass(frozen=True, slots=True)
class View:
    """``turns``: what the user said, newest first, at most two, each cut to TURN_CHARS; never empty, "" for nothing.

    ``answer`` is the beginning of the last answer, ``length`` the characters of the newest turn before it was cut.
    """

    turns: tuple[str, ...]
    answer: str
    length: int
    partial: bool = False
    """Whether there is more to the turn than its text: an image, or what a tool said after it."""

    @property
    def last(self) -> str:
        """The newest user turn."""
        return self.turns[0]


def view_of(messages: Sequence[Message]) -> View:
    """The view of a conversation. Looks back no further than the turn before the last."""
    turns: list[str] = []
    answer, length = "", 0
    partial = bool(messages) and messages[-1].get("role") != "user"
    for message in reversed(messages):
        role = message.get("role")
        if role == "user":
            text = text_of(message)
            if not turns:
                length, partial = len(text), partial or not _is_text(message)
            turns.append(_both_ends(text))
            if len(turns) > 1:
                break
        elif role == "assistant" and turns and not answer:
            answer = text_of(message)[:ANSWER_CHARS]
    return View(tuple(turns) or ("",), answer, length, partial)


def _is_text(message: Message) -> bool:
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return True
    return all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content)


def _both_ends(text: str) -> str:
    if len(text) <= TURN_CHARS:
        return text
    half = TURN_CHARS // 2
    return f"{text[:half]}\n{text[-half:]}"
