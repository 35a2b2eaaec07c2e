"""A whole answer; and what is needed for a streamed one (answer.py) as well."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import Payload
from ai_router.dispatch.beginning import Beginning, logprobs_in_answer
from ai_router.types import Attempt


class PlainAnswer:
    """A whole answer: ``body`` for the client, and the message and the usage in it, as in chat completions.

    ``client_answer``: the answer in the form of the client's API, parsed; None: that is chat completions.
    """

    def __init__(
        self,
        body: bytes,
        message: Mapping[str, Any],
        usage: Mapping[str, Any] | None,
        attempt: Attempt,
        client_answer: Payload | None = None,
    ) -> None:
        self.client_answer = client_answer
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


def parsed(body: bytes) -> Any:
    """The parsed JSON; None if it is not valid."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def ms_since(started: float) -> float:
    """Milliseconds since ``started``, in monotonic seconds."""
    return (time.monotonic() - started) * 1000
