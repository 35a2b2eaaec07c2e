"""Whether the primary thinks before it answers, as its answers tell. A small max_tokens would be spent on thinking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.providers.catalogue import PRIMARY
from ai_router.providers.fields import thinks_not
from ai_router.types import Cost, Outcome, Status

_TAG = "<think>"
"""How an answer begins where the server does not tell thinking and answer apart."""


class PrimaryThinking:
    """What is known of the primary. Written by the recorder's thread, read by all."""

    def __init__(self, reasons: bool | None = None) -> None:
        self.reasons = reasons
        """Whether an answer has had reasoning in it. None: there was none yet that might have. True stays."""

    def finished(self, outcome: Outcome, _: Cost) -> None:
        """Learn from an answer of the primary. A sink of the recorder."""
        answered = outcome.status is Status.OK and outcome.attempts and outcome.attempts[-1].backend == PRIMARY
        if self.reasons is True or not answered:
            return
        if _has_reasoning(outcome.response or {}, outcome.usage or {}):
            self.reasons = True
        elif not thinks_not(outcome.request.params):
            self.reasons = False


def _has_reasoning(message: Mapping[str, Any], usage: Mapping[str, Any]) -> bool:
    details, content = usage.get("completion_tokens_details"), message.get("content")
    return (
        bool(message.get("reasoning") or message.get("reasoning_content"))
        or (isinstance(details, Mapping) and bool(details.get("reasoning_tokens")))
        or (isinstance(content, str) and content.lstrip().startswith(_TAG))
    )
