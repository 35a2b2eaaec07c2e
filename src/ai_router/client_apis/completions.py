"""The old completions API, for clients: a text goes on. Editors ask for code between a prefix and a suffix with it.

Source: openai 3.57.0 (types/completion_create_params.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ai_router.apis import ClientForm, Payload, ReadRequest
from ai_router.client_apis.reading import limit_of, typed
from ai_router.envelope import envelope_json, error_event
from ai_router.errors import InvalidRequest, RouterError
from ai_router.providers.chunks import chunk_of

_ONLY_HERE = frozenset({"best_of", "echo", "logprobs", "model", "prompt", "stream", "stream_options", "suffix"})
"""Fields that chat completions do not have, or not in this form. All others are the same there."""
_UNTRANSLATABLE = ("suffix", "echo", "best_of")
CODE_COMPLETION = "code_completion"
"""The job that a request with a suffix is: an editor's, while somebody types. It is not worth a decision or a cloud."""


class Completions:
    """POST /v1/completions."""

    name = "completions"
    path = "/v1/completions"
    error_paths: Sequence[str] = ()
    family: str | None = "completions"
    token_limits: Sequence[str] = ("max_tokens",)
    media_type = "text/event-stream"
    client_headers: Sequence[str] = ()

    def read(self, payload: dict[str, Any]) -> ReadRequest:
        prompt = payload.get("prompt")
        if prompt is None:
            raise InvalidRequest("'prompt' is required", "prompt", code="missing_required_parameter")
        if not isinstance(prompt, (str, list)):
            raise InvalidRequest("'prompt' must be a string or an array", "prompt", code="invalid_type")
        texts = [prompt] if isinstance(prompt, str) else [text for text in prompt if isinstance(text, str)]
        unfit = [name for name in _UNTRANSLATABLE if payload.get(name)]
        if not isinstance(prompt, str) and (len(prompt) != 1 or not texts):
            # Several texts at once, or tokens.
            unfit.append("prompt")
        limit_of(payload, "max_tokens")
        params = {name: value for name, value in payload.items() if name not in _ONLY_HERE}
        if (logprobs := typed(payload, "logprobs", int, "an integer")) is not None:
            params |= {"logprobs": True, "top_logprobs": logprobs}
        options = typed(payload, "stream_options", dict, "an object") or {}
        return ReadRequest(
            messages=[{"role": "user", "content": "\n".join(texts)}],
            params=params,
            client_fields={name: value for name, value in payload.items() if name not in ("model", "stream")},
            kept={"untranslatable": unfit[0] if unfit else None, "usage": options.get("include_usage") is True},
            task=CODE_COMPLETION if payload.get("suffix") else None,
        )

    def streams(self, payload: Payload) -> bool:
        return bool(typed(payload, "stream", bool, "a boolean"))

    def thoughts_in(self, answer: Payload) -> Sequence[str]:  # noqa: ARG002 - there are none
        return ()

    def keeps_form(self, payload: Payload) -> bool:  # noqa: ARG002 - all known servers keep it
        return True

    def answer(self, completion: Payload, form: ClientForm) -> Payload:  # noqa: ARG002 - it repeats nothing of the request
        return _text_completion(chunk_of(completion))

    def writer(self, form: ClientForm) -> CompletionWriter:
        return CompletionWriter(form)

    def error_body(self, error: RouterError, request_id: str) -> bytes:  # noqa: ARG002 - it is in a header
        return envelope_json(error)


class CompletionWriter:
    """Writes one answer as the events of this API. The usage comes in an event of its own, if the client wants it."""

    def __init__(self, form: ClientForm) -> None:
        self.whole: Payload | None = None
        self._wants_usage = bool(form.kept.get("usage"))

    def chunk(self, chunk: Payload) -> bytes:
        if not self._is_shown(chunk):
            return b""
        return b"data: " + orjson.dumps(_text_completion(chunk)) + b"\n\n"

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def passed_on(self, event: Payload) -> bool:
        return self._is_shown(event)

    def error(self, error: RouterError) -> bytes:
        return error_event(error)

    def comment(self, text: str) -> bytes:
        return f": {' '.join(text.split())}\n\n".encode()

    def _is_shown(self, event: Payload) -> bool:
        return self._wants_usage or bool(event.get("choices")) or not event.get("usage")


def _text_completion(chunk: Payload) -> dict[str, Any]:
    usage = {"usage": chunk["usage"]} if chunk.get("usage") is not None else {}
    return {
        "id": chunk.get("id"),
        "object": "text_completion",
        "created": chunk.get("created") or int(time.time()),
        "model": chunk.get("model"),
        "choices": [_choice(choice) for choice in chunk.get("choices") or ()],
        **usage,
    }


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    text = (choice.get("delta") or {}).get("content") or ""
    finish_reason = choice.get("finish_reason")
    return {"index": choice.get("index") or 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


API = Completions()
