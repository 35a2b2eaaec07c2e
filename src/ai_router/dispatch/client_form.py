"""Requests and answers in an API of the client's that is not chat completions: what is passed on, what is translated.

There are four ways, by what the client and the backend speak. Both chat completions: the bytes are relayed, and nothing
of this module is used. The same other API: the bytes are relayed, and the events are also translated, for the router's
own notes. Else: the backend's events are translated into chunks of chat completions (``Translation``), and the chunks
are written in the client's API (``AnswerWriter``); one of the two may be chat completions itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson
from cachetools import LRUCache, TTLCache

from ai_router.apis import AnswerWriter, ClientForm, Payload
from ai_router.errors import ApiNotSpoken, UpstreamRefused
from ai_router.providers.families import FAMILIES, Family, SpokenFamily, Translation
from ai_router.providers.registry import Backend
from ai_router.shared.start import ALONE
from ai_router.shared.values import Values
from ai_router.types import ChatRequest, Outcome

_NOT_SPOKEN_STATUSES = frozenset({404, 405, 501})
_REMEMBERED_S = 3600.0
_REQUEST_S = 900.0
"""Longer than any request."""
_SHARED_THOUGHTS_S = 6 * 3600.0
_REMEMBERED_THOUGHTS = 50_000
_UNREADABLE = {"error": {"message": "an event is of no shape that is known"}}
SHAPE_ERRORS = (KeyError, ValueError, TypeError, AttributeError)
"""Errors of code that reads JSON of an unexpected shape."""


class CannotCarry(UpstreamRefused):
    """400: a field of the request has no place in the API that the backend speaks. Another backend may be asked."""

    recoverable = True
    code = "unsupported_by_model"


class ThoughtOrigins:
    """Which backend has made which thoughts: another one cannot read them, and refuses what it cannot read.

    The thoughts of the Responses API are encrypted, those of Anthropic's signed. A backend is sent its own only. Of
    those that nobody knows (the router was started anew) nobody is sent any. Safe from any thread.

    ``values``: where other processes find what this one has noted.
    """

    def __init__(self, values: Values = ALONE.values) -> None:
        self._values = values
        self._origins: LRUCache[bytes, str] = LRUCache(_REMEMBERED_THOUGHTS)
        """By a digest: the names may be long."""
        self._lock = threading.Lock()

    def note(self, outcome: Outcome) -> None:
        """Remember who made the thoughts of an answer that was passed on."""
        form = outcome.request.client_form
        if form is None or outcome.client_answer is None or not outcome.attempts:
            return
        made, backend = form.api.thoughts_in(outcome.client_answer), outcome.attempts[-1].backend
        with self._lock:
            for name in made:
                self._origins[_digest(name)] = backend
        for name in made:
            self._values.put(_value_name(name), backend.encode(), _SHARED_THOUGHTS_S)

    def foreign(self, form: ClientForm, backend: Backend) -> frozenset[str]:
        """Those of a request's thoughts that this backend did not make."""
        named: Sequence[str] = form.kept.get("reasoning", ())
        if not named:
            return frozenset()
        with self._lock:
            origins = {name: self._origins.get(_digest(name)) for name in named}
        if unknown := [name for name, origin in origins.items() if origin is None]:
            found = self._values.get([_value_name(name) for name in unknown]) or ()
            origins |= {name: value.decode() for name, value in zip(unknown, found, strict=False) if value is not None}
        return frozenset(name for name, origin in origins.items() if origin != backend.name)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=16).digest()


def _value_name(thought: str) -> str:
    return f"thought:{_digest(thought).hex()}"


class SpokenApis:
    """Which backends speak which API. A provider's entry in the catalogue says so; a server of one's own is asked, and
    what it does not have is remembered for an hour. Safe from any thread.

    A model that is not there has the same status as an API that is not there. So a status is held against a backend
    only once the same request, in chat completions, has been answered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._not_spoken: TTLCache[tuple[str, str], bool] = TTLCache(256, _REMEMBERED_S)
        self._suspected: TTLCache[tuple[str, str, str], bool] = TTLCache(4_096, _REQUEST_S)
        """By the id of the request in which it was asked."""

    def family_for(self, request: ChatRequest, backend: Backend) -> SpokenFamily | None:
        """The family of the client's own API, if the backend speaks it, as far as is known; None: it does not."""
        name = None if request.client_form is None else request.client_form.api.family
        if name is None or not backend.may_speak(name):
            return None
        with self._lock:
            if (backend.name, name) in self._not_spoken or (request.request_id, backend.name, name) in self._suspected:
                return None
        return cast(SpokenFamily, FAMILIES[name])

    def check(self, status: int, family: SpokenFamily, backend: Backend, request: ChatRequest) -> None:
        """Raises ApiNotSpoken if the status of a response may say that the backend does not have this API."""
        if status in _NOT_SPOKEN_STATUSES and family is not backend.family:
            with self._lock:
                self._suspected[request.request_id, backend.name, family.name] = True
            raise ApiNotSpoken(f"HTTP {status}: it does not have {family.path}", backend.source, status=status)

    def answered(self, request: ChatRequest, backend: Backend) -> None:
        """The backend has answered the request in the API that it speaks by default: if another API was not found
        there before, it does not have that one, which is remembered for an hour."""
        name = None if request.client_form is None else request.client_form.api.family
        if name is not None:
            with self._lock:
                if self._suspected.pop((request.request_id, backend.name, name), False):
                    self._not_spoken[backend.name, name] = True

    def note_partly_spoken(self, family: SpokenFamily, backend: Backend) -> None:
        """The backend has only a part of this API."""
        with self._lock:
            self._not_spoken[backend.name, family.name] = True


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of an answer: the backend's (``family``), and the client's (``client_form``; None: chat completions).

    ``passes_on``: they are the same API, which is not chat completions. ``on_partly_spoken`` is called if the backend
    turns out to have only a part of it.
    """

    family: Family
    client_form: ClientForm | None
    passes_on: bool
    on_partly_spoken: Callable[[], object] = lambda: None

    def of_chat_completions(self) -> AnswerForm:
        """The same for an answer that is one of chat completions by now."""
        return replace(self, family=FAMILIES["chat"], passes_on=False)

    def rewriting(self) -> Rewriting | None:
        """What a stream needs; None if it is one of chat completions for a client that speaks them."""
        if self.client_form is None and self.family is FAMILIES["chat"]:
            return None
        writer = None if self.client_form is None else self.client_form.api.writer(self.client_form)
        check = self._keeps_form if self.passes_on else None
        return Rewriting(self.family.translation(), writer, check)

    def _keeps_form(self, payload: Payload) -> bool:
        if self.client_form is None or self.client_form.api.keeps_form(payload):
            return True
        self.on_partly_spoken()
        return False

    def whole(self, body: bytes, completion: Payload, *, is_whole: bool) -> tuple[bytes, Payload | None]:
        """The body for the client of an answer that is not streamed, and the same parsed, if it is not a completion.

        ``completion``: what ``body`` amounts to. ``is_whole``: whether the body is one JSON object, not events.
        """
        if self.client_form is None:
            return orjson.dumps(completion), None
        if self.passes_on and is_whole and (parsed := _strictly(body)) is not None and self._keeps_form(parsed):
            return body, parsed
        answer = self.client_form.api.answer(completion, self.client_form)
        return orjson.dumps(answer), answer


def _strictly(body: bytes) -> Payload | None:
    """The JSON object; None for JSON that is not strict, which clients could not read."""
    try:
        return cast(Payload, orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


class Rewriting:
    """Turns the events of one stream into what its client gets.

    ``translation``: None if the events are chunks of chat completions. ``writer``: None if the client gets those.
    ``keeps_form``: the client gets the events as they are, if this says so of the first of them; the translation is for
    the router's own notes then. None: it does not.
    """

    def __init__(
        self,
        translation: Translation | None,
        writer: AnswerWriter | None,
        keeps_form: Callable[[Payload], bool] | None = None,
    ) -> None:
        self._translation = translation
        self.writer = writer
        self.passes_on = keeps_form is not None
        self._keeps_form = keeps_form

    @property
    def ended(self) -> bool:
        """Whether an event has said that the answer is complete. Chat completions say it with [DONE] instead."""
        return self._translation is not None and self._translation.ended

    @property
    def ends_with_done(self) -> bool:
        """Whether [DONE] is the end of the backend's answer."""
        return self._translation is None or self._translation.ends_with_done

    def chunks(self, payload: Mapping[str, Any]) -> Sequence[Payload]:
        """The chunks of chat completions for one event. An error without a type is passed on unchanged."""
        if self._keeps_form is not None and not _is_error(payload):
            self.passes_on, self._keeps_form = self._keeps_form(payload), None
        if self._translation is None or ("error" in payload and "type" not in payload):
            return (payload,)
        try:
            return self._translation.feed(payload)
        except SHAPE_ERRORS:
            return (_UNREADABLE,)

    def written(self, chunk: Payload) -> bytes:
        """What the client gets for a chunk; nothing if it gets the events themselves."""
        if self.passes_on:
            return b""
        return b"data: " + orjson.dumps(chunk) + b"\n\n" if self.writer is None else self.writer.chunk(chunk)

    def passed_on(self, raw: bytes, payload: Payload | None = None) -> bytes:
        """What the client gets of an event itself: it, or nothing. ``payload``: its data, if that is an object."""
        if not self.passes_on:
            return b""
        if self.writer is None or payload is None or self.writer.passed_on(payload):
            return raw
        return b""

    def end(self) -> bytes:
        """The end of a complete answer, for the client, where the backend has sent none."""
        if self.passes_on:
            return DONE if self.ends_with_done else b""
        return DONE if self.writer is None else self.writer.end()


def _is_error(payload: Mapping[str, Any]) -> bool:
    return bool(payload.get("error")) or payload.get("type") == "error"


DONE = b"data: [DONE]\n\n"
