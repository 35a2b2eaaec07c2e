"""Chat completions: OpenAI's API, which vLLM, llama.cpp, xAI, Gemini and OpenRouter have, too.

The router speaks it with its clients as well: see providers/chat_completions.py.
"""

from __future__ import annotations

from ai_router.providers.chat_completions import ChatCompletions

FAMILY = ChatCompletions()
