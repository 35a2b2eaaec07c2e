"""A whole answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ai_router.apis import Payload
from ai_router.dispatch.beginning import Beginning, logprobs_in_answer
from ai_router.types import Attempt


class PlainAnswer:
    """A whole answer: ``body`` for the client, and the message and the usage in it, as in chat completions.

    ``own``: the answer in the form of the client's API, parsed; None: that is chat completions.
    """

    def __init__(
        self,
        body: bytes,
        message: Mapping[str, Any],
        usage: Mapping[str, Any] | None,
        attempt: Attempt,
        own: Payload | None = None,
    ) -> None:
        self.own = own
        self.body = body
        self.message = message
        self.usage = usage
        self.warnings: Sequence[str] = ()
        """What became of the client's fields."""
        self._attempt = attempt

    def catch_up(self, chars: int) -> Beginning:
        """How the answer begins: so many characters, if it has so many."""
        content = self.message.get("content")
        return Beginning(content[:chars] if isinstance(content, str) else "", logprobs_in_answer(self.body))

    def attempt(self) -> Attempt:
        """The call that gave this answer."""
        return self._attempt

    def close(self) -> None:
        """Does nothing: the response has been closed already."""
