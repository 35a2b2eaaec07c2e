"""What the router needs of an API that clients speak besides chat completions. The APIs are in client_apis/.

Inside the router requests and answers have the form of chat completions: that is what is decided on, logged, kept and
translated for backends. A ``ClientApi`` reads a request of its API into that form, and writes answers out of it. Where
the backend speaks the client's own API, the client's body goes there and the answer comes back as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ai_router.errors import RouterError

Payload = Mapping[str, Any]
"""A parsed JSON object."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What the router adds to a conversation: the date, in the system message, and context from the web, before the
    text of the last user message. Empty: nothing."""

    date: str = ""
    context: str = ""


@dataclass(frozen=True, slots=True)
class ClientForm:
    """A request in the form of its client's API.

    ``fields``: the body, without ``model`` and ``stream``; plain values. ``headers``: those of the client's that a
    backend of this API is sent. ``kept``: what the API itself wants to know again when it writes the answer.
    """

    api: ClientApi
    fields: Payload
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: Payload = field(default_factory=dict)
    prompt_tokens: int = 0
    """A rough count, for APIs that tell it before the answer."""
    arrived_at: float | None = None
    """When the request came, in monotonic seconds, for APIs that tell how long it took; None: unknown."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request as chat completions.

    ``messages`` and ``params`` as in chat completions, plain values. ``client_fields``: the fields of the body as they
    came. ``headers`` and ``kept`` as in ClientForm. ``warnings``: what the client should know of its fields.
    ``searches``: the client wants the web to be searched. ``task``: which background job it is; None: none.
    """

    messages: Sequence[dict[str, Any]]
    params: dict[str, Any]
    client_fields: Payload
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: Payload = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    searches: bool = False
    task: str | None = None
    model: str | None = None
    """The name of the model, where it is not the field ``model`` as it stands."""


class AnswerWriter(Protocol):
    """Writes one streamed answer in the form of an API.

    Either the chunks of chat completions are given to it, or, where the backend's own events are passed on, those.
    """

    whole: Payload | None
    """The answer in one piece, in the form of the API, once it is complete; None before."""

    def chunk(self, chunk: Payload) -> bytes:
        """What the client is sent for a ``chat.completion.chunk``."""

    def end(self) -> bytes:
        """The end of a complete answer."""

    def passed_on(self, event: Payload) -> bool:
        """Note an event of the backend's. Whether the client gets it, as it is."""

    def error(self, error: RouterError) -> bytes:
        """The last event of an answer that is not complete."""

    def comment(self, text: str) -> bytes:
        """A few words while nothing else is sent, as far as the API has a place for them."""


class ClientApi(Protocol):
    """An API in which clients ask.

    ``path``: where. ``error_paths``: further paths of the same API, whose errors have its form. ``family``: the API of
    backends that take its bodies (providers/families); None: none does. ``token_limits``: the fields of these bodies
    that limit an answer's tokens, the usual one first. ``media_type``: of its streams.
    ``client_headers``: the names of the headers that a backend of this API is sent, in lower case.
    """

    name: str
    path: str
    error_paths: Sequence[str]
    family: str | None
    token_limits: Sequence[str]
    media_type: str
    client_headers: Sequence[str]

    def read(self, payload: dict[str, Any]) -> ReadRequest:
        """The request. Raises InvalidRequest, which names the field, for what is wrong or is not offered."""

    def streams(self, payload: Payload) -> bool:
        """Whether the client wants a stream. Raises InvalidRequest."""

    def thoughts_in(self, answer: Payload) -> Sequence[str]:
        """The names of the thoughts in an answer that only the backend which made them can read again."""

    def keeps_form(self, payload: Payload) -> bool:
        """Whether a backend's answer, or the first event of one, has what clients of this API rely on. Some servers
        have the API in part; what they say is written anew then."""

    def answer(self, completion: Payload, form: ClientForm) -> Payload:
        """A whole answer, from a ``chat.completion``."""

    def writer(self, form: ClientForm) -> AnswerWriter:
        """The writer of one streamed answer."""

    def error_body(self, error: RouterError, request_id: str) -> bytes:
        """The body of a response that is an error."""
