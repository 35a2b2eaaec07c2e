"""Perplexity's agent API: the Responses API with a few fields of its own, and with a 400 for every other.

Sources: perplexityai 0.46.1 (generated/api.py), docs.perplexity.ai/docs/agent-api, Perplexity's notes on leaving Sonar.
"""

from __future__ import annotations

from ai_router.providers.families import Payload
from ai_router.providers.families.responses import Responses


class Agent(Responses):
    """``preset`` may stand in the model's place (``send_as``); an answer's form is asked for as in chat completions."""

    path = "/agent"
    copied = ("temperature", "top_p", "metadata", "store", "parallel_tool_calls", "service_tier")

    def response_format(self, response_format: Payload) -> Payload:
        """As the client wrote it."""
        return {"response_format": response_format}


FAMILY = Agent()
