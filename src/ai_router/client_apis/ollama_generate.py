"""Ollama's /api/generate, for clients: one text, one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import ClientForm, ReadRequest
from ai_router.client_apis import ollama
from ai_router.client_apis.completions import CODE_COMPLETION
from ai_router.client_apis.reading import typed
from ai_router.errors import InvalidRequest


class OllamaGenerate(ollama.OllamaApi):
    """POST /api/generate."""

    name = "ollama_generate"
    path = "/api/generate"
    error_paths: Sequence[str] = ()

    def read(self, payload: dict[str, Any]) -> ReadRequest:
        prompt = typed(payload, "prompt", str, "a string")
        if not prompt and not payload.get("images"):
            raise InvalidRequest("'prompt' is required: nothing has to be loaded here", "prompt")
        system = typed(payload, "system", str, "a string")
        turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": ollama.with_pictures(prompt or "", payload.get("images"), "images")})
        has_suffix = bool(payload.get("suffix"))
        return ReadRequest(
            turns,
            ollama.params_of(payload),
            client_fields={},
            kept={"untranslatable": "suffix" if has_suffix else None},
            task=CODE_COMPLETION if has_suffix else None,
            model=ollama.model_in(payload),
        )

    def writer(self, form: ClientForm) -> GenerateWriter:
        return GenerateWriter(form)


class GenerateWriter(ollama.LineWriter):
    """A line has a part of the answer as ``response``."""

    def __init__(self, form: ClientForm) -> None:
        super().__init__(form)
        self._texts: list[str] = []
        self._thoughts: list[str] = []

    def delta(self, delta: Mapping[str, Any]) -> dict[str, Any] | None:
        text, thought = delta.get("content") or "", delta.get("reasoning") or delta.get("reasoning_content") or ""
        if not text and not thought:
            return None
        self._texts.append(text)
        self._thoughts.append(thought)
        return {"response": text, **({"thinking": thought} if thought else {})}

    def last(self) -> dict[str, Any]:
        return {"response": ""}

    def end(self) -> bytes:
        line = super().end()
        thought = "".join(self._thoughts)
        told = {"response": "".join(self._texts), **({"thinking": thought} if thought else {})}
        self.whole = {**orjson.loads(line), **told}
        return line


API = OllamaGenerate()
