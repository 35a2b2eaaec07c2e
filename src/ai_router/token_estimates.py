"""How many tokens a text has, where nobody counts them."""

from __future__ import annotations

_CHARS_PER_TOKEN = 4
"""Of English text, on the whole."""


def estimated_tokens(chars: int) -> int:
    """The tokens of a text of so many characters."""
    return -(-chars // _CHARS_PER_TOKEN)
