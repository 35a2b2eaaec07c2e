"""
title: ai-router feedback
description: Tells ai-router which answers were given a thumb, so that it learns from them.
"""
# A filter function for Open WebUI 0.10 and later. docs/clients.md says how to set it up.

import asyncio
import json
import logging
import urllib.request
from typing import Any

from open_webui.models.chats import Chats
from pydantic import BaseModel, Field

log = logging.getLogger(__name__)
_VERDICTS = {1: "good", -1: "bad"}


class Filter:
    """With each message of a chat it looks which earlier answers have a thumb that has not been told yet."""

    class Valves(BaseModel):
        router_url: str = Field(default="http://127.0.0.1:8080", description="ai-router, without /v1")
        api_key: str = Field(default="", description="The key of the connection; empty: none")

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._told: dict[str, int] = {}

    async def inlet(self, body: dict[str, Any], __metadata__: dict[str, Any] | None = None) -> dict[str, Any]:
        chat_id = (__metadata__ or {}).get("chat_id")
        chat = await Chats.get_chat_by_id(chat_id) if chat_id else None
        if chat is not None:
            for message_id, message in chat.chat.get("history", {}).get("messages", {}).items():
                await self._tell(message_id, (message.get("annotation") or {}).get("rating"))
        return body

    async def _tell(self, message_id: str, rating: Any) -> None:
        if rating not in _VERDICTS or self._told.get(message_id) == rating:
            return
        self._told[message_id] = rating
        try:
            await asyncio.to_thread(self._post, {"request_id": message_id, "verdict": _VERDICTS[rating]})
        except OSError as problem:  # the chat must go on, whatever becomes of the thumb
            log.warning("ai-router did not take the feedback about %s: %s", message_id, problem)

    def _post(self, verdict: dict[str, str]) -> None:
        request = urllib.request.Request(
            f"{self.valves.router_url.rstrip('/')}/v1/feedback",
            json.dumps(verdict).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self.valves.api_key}"},
        )
        with urllib.request.urlopen(request, timeout=10):
            pass
