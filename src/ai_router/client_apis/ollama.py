"""What Ollama's two APIs for answers share: options, formats, and streams of JSON lines.

Source: docs/api.md of Ollama, and its Python client (ollama 0.6.3).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ai_router.apis import ClientForm, Payload
from ai_router.client_apis.reading import typed
from ai_router.errors import InvalidRequest, RouterError
from ai_router.providers.chunks import chunk_of

_OPTIONS = {
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "num_predict": "max_tokens",
    "presence_penalty": "presence_penalty",
    "repeat_penalty": "repeat_penalty",
    "seed": "seed",
    "stop": "stop",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
"""Options, and their names in chat completions or on vLLM and llama.cpp. The others are Ollama's own affair."""
_NUMBERS = _OPTIONS.keys() - {"stop"}
_EFFORTS = {True: "medium", False: "none"}
_TAG = ":latest"
"""What its clients append to names without a tag."""
_ITS_FIELDS = frozenset({"keep_alive", "options"})
_TAGGED = tuple(f"{name}{_TAG}" for name in ("auto", "primary", "xai", "enrich"))
"""The router's own names, as its clients send them."""
_NS = 1_000_000_000
_TIMES_OF_STREAMS = frozenset({"prompt_eval_duration", "eval_duration"})
"""Nobody knows when the first token of a whole answer came. In its Python client they are optional, like all times."""


def is_ollamas(payload: Mapping[str, Any]) -> bool:
    """Whether a body that asks for an answer is one of Ollama's API, as far as its fields tell. A name with its tag is
    no sign of it: a server's model may be called that in any API."""
    asks = "messages" in payload or "prompt" in payload
    return asks and (not _ITS_FIELDS.isdisjoint(payload) or payload.get("model") in _TAGGED)


def model_in(payload: Mapping[str, Any]) -> str | None:
    """The name of the model, without the tag that Ollama's clients put behind it."""
    model: str | None = typed(payload, "model", str, "a string")
    return model.removesuffix(_TAG) if model else None


def params_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of chat completions for options, format and thinking."""
    options = typed(payload, "options", dict, "an object") or {}
    for name in _NUMBERS & options.keys():
        typed(options, name, (int, float), "a number", "options")
    params = {_OPTIONS[name]: value for name, value in options.items() if name in _OPTIONS and value is not None}
    limit = params.get("max_tokens")
    if isinstance(limit, int) and limit < 1:
        # Minus one is as long as it takes.
        del params["max_tokens"]
    wanted = payload.get("format")
    if wanted == "json":
        params["response_format"] = {"type": "json_object"}
    elif isinstance(wanted, dict):
        params["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
    elif wanted:
        raise InvalidRequest("'format' must be 'json' or a schema", "format", code="invalid_type")
    think = typed_flag(payload, "think")
    if think is not None:
        params["reasoning_effort"] = _EFFORTS[think] if isinstance(think, bool) else think
    return params


def typed_flag(payload: Mapping[str, Any], name: str) -> bool | str | None:
    """A field that is true, false or a text. Raises InvalidRequest."""
    value = payload.get(name)
    if value is not None and not isinstance(value, (bool, str)):
        raise InvalidRequest(f"'{name}' must be true, false or a string", name, code="invalid_type")
    return value


def picture(text: str) -> dict[str, Any]:
    """A picture, which is base64 without a type here, as a part of a message. Its first bytes tell the type."""
    kinds = (("/9j/", "jpeg"), ("R0lGOD", "gif"), ("UklGR", "webp"))
    kind = next((kind for begin, kind in kinds if text.startswith(begin)), "png")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{text}"}}


def with_pictures(text: str, images: Any, where: str) -> Any:
    """The content of a message with a text and pictures. Raises InvalidRequest."""
    if images is not None and not (isinstance(images, list) and all(isinstance(image, str) for image in images)):
        raise InvalidRequest(f"'{where}' must be an array of strings", where, code="invalid_type")
    if not images:
        return text
    return [*([{"type": "text", "text": text}] if text else []), *(picture(image) for image in images)]


class OllamaApi:
    """What both APIs have in common. No backend is asked in them: all is translated."""

    family: str | None = None
    token_limits: Sequence[str] = ()
    media_type = "application/x-ndjson"
    client_headers: Sequence[str] = ()

    def streams(self, payload: Payload) -> bool:
        """Whether the client wants a stream, which it does unless it says otherwise. Raises InvalidRequest."""
        wanted = typed(payload, "stream", bool, "a boolean")
        return True if wanted is None else bool(wanted)

    def writer(self, form: ClientForm) -> LineWriter:
        """Subclasses have one."""
        raise NotImplementedError

    def answer(self, completion: Payload, form: ClientForm) -> Payload:
        """A whole answer: all that its lines say, in one, but for the times up to its first token and after it."""
        writer = self.writer(form)
        writer.chunk(chunk_of(completion))
        writer.end()
        return {name: value for name, value in (writer.whole or {}).items() if name not in _TIMES_OF_STREAMS}

    def thoughts_in(self, answer: Payload) -> Sequence[str]:  # noqa: ARG002 - there are none
        """None."""
        return ()

    def keeps_form(self, payload: Payload) -> bool:  # noqa: ARG002 - no backend is asked in this API
        """True."""
        return True

    def error_body(self, error: RouterError, request_id: str) -> bytes:  # noqa: ARG002 - it is in a header
        """``{"error": text}``."""
        return error_body(error)


class LineWriter:
    """Writes one answer as lines of JSON. Subclasses say what a delta becomes."""

    def __init__(self, form: ClientForm) -> None:
        self.whole: Payload | None = None
        self._form = form
        self._began_at = form.arrived_at or time.monotonic()
        self._first_at: float | None = None
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._usage: Mapping[str, Any] = {}

    def delta(self, delta: Mapping[str, Any]) -> dict[str, Any] | None:
        """The fields of a line for a delta; None: no line."""
        raise NotImplementedError

    def last(self) -> dict[str, Any]:
        """The fields of the last line, besides the figures."""
        raise NotImplementedError

    def chunk(self, chunk: Payload) -> bytes:
        lines = b""
        self._model = self._model or chunk.get("model")
        if isinstance(usage := chunk.get("usage"), Mapping):
            self._usage = usage
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            fields = self.delta(choice.get("delta") or {})
            if fields is not None:
                self._first_at = self._first_at or time.monotonic()
                lines += self._line(fields, done=False)
        return lines

    def end(self) -> bytes:
        return self._line(self.last() | self._figures(), done=True)

    def passed_on(self, event: Payload) -> bool:  # noqa: ARG002 - no backend is asked in this API
        return True

    def error(self, error: RouterError) -> bytes:
        return error_body(error) + b"\n"

    def comment(self, text: str) -> bytes:  # noqa: ARG002 - lines of JSON have no comments
        return b""

    def _line(self, fields: Mapping[str, Any], *, done: bool) -> bytes:
        head = {"model": self._model or self._form.fields.get("model"), "created_at": _now()}
        return orjson.dumps({**head, **fields, "done": done}) + b"\n"

    def _figures(self) -> dict[str, Any]:
        now = time.monotonic()
        first_at = self._first_at or now
        reason = "length" if self._finish_reason == "length" else "stop"
        return {
            "done_reason": reason,
            "total_duration": int((now - self._began_at) * _NS),
            "load_duration": 0,
            "prompt_eval_count": self._usage.get("prompt_tokens") or self._form.prompt_tokens,
            "prompt_eval_duration": int((first_at - self._began_at) * _NS),
            "eval_count": self._usage.get("completion_tokens") or 0,
            "eval_duration": int((now - first_at) * _NS),
        }


def error_body(error: RouterError) -> bytes:
    """An error in the form of this API."""
    return orjson.dumps({"error": str(error)})


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
