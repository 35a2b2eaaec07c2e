"""Perplexity's agent API: the Responses API with a few fields of its own. It answers 400 to fields it does not know.

Sources: perplexityai 0.46.1 (generated/api.py), docs.perplexity.ai/docs/agent-api, Perplexity's notes on leaving Sonar.
"""

from __future__ import annotations

from ai_router.apis import Payload
from ai_router.providers.families.responses import Responses


class Agent(Responses):
    """A request may have ``preset`` instead of ``model`` (``send_as`` in the catalogue)."""

    name = "agent"
    path = "/agent"
    copied = ("temperature", "top_p", "metadata", "store", "parallel_tool_calls", "service_tier")

    def response_format(self, response_format: Payload) -> Payload:
        """``response_format`` as in chat completions."""
        return {"response_format": response_format}


FAMILY = Agent()
