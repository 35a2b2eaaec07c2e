"""What the head reads of a conversation: the last user turn first, then a little of what came before. Bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ai_router.exchange import Message
from ai_router.routing.text import text_of

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

    @property
    def last(self) -> str:
        """The newest user turn."""
        return self.turns[0]


def view_of(messages: Sequence[Message]) -> View:
    """The view of a conversation. Looks back no further than the turn before the last."""
    turns: list[str] = []
    answer, length = "", 0
    for message in reversed(messages):
        role = message.get("role")
        if role == "user":
            text = text_of(message)
            length = length or len(text)
            turns.append(_both_ends(text))
            if len(turns) > 1:
                break
        elif role == "assistant" and turns and not answer:
            answer = text_of(message)[:ANSWER_CHARS]
    return View(tuple(turns) or ("",), answer, length)


def _both_ends(text: str) -> str:
    if len(text) <= TURN_CHARS:
        return text
    half = TURN_CHARS // 2
    return f"{text[:half]}\n{text[-half:]}"
