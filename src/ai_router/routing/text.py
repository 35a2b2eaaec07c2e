"""The text of a message, whichever of the wire's shapes it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ai_router.types import Message


def text_of(message: Message) -> str:
    """The content as plain text: a string as it is, parts joined by newlines, an image as ``[image]``, null as ""."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    return "\n".join(_part_text(part) for part in content if isinstance(part, Mapping))


def last_user_text(messages: Sequence[Message]) -> str:
    """What the user said last; "" if the user said nothing."""
    return next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")


def _part_text(part: Mapping[str, object]) -> str:
    text = part.get("text")
    if isinstance(text, str):
        return text
    kind = part.get("type")
    return f"[{kind.removesuffix('_url')}]" if isinstance(kind, str) else ""
