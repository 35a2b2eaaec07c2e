"""Every failure the router can name, in one tree, and the one renderer of the OpenAI envelope.

    RouterError
    |- ClientError                   the request must change before it can work
    |  |- InvalidRequest       400   malformed JSON, a wrong type, an empty list
    |  |- Unauthenticated      401   no key, or a wrong one
    |  |- Forbidden            403   a key, but not one that may see this
    |  |- ModelNotFound        404   no model or route of that name
    |  |- NotFound             404   no such path
    |  |- SessionNotFound      404   no session of that id, or somebody else's
    |  |- MethodNotAllowed     405
    |  |- SlowBody             408   the body did not arrive in time
    |  `- BodyTooLarge         413
    |- Overloaded              503   every place for a request is taken; come back later
    |- InternalError           500   a defect of ours
    |- ShuttingDown            503   the router is being stopped
    |- StoreUnavailable        503   the database of usage cannot be asked
    |- UpstreamError                 a backend could not answer (carries backend and model)
    |  |- UpstreamUnreachable  502   refused, no such host, TLS; the backend saw no request
    |  |- UpstreamTimeout      504   no first byte in time, a stall, or the total deadline
    |  |- UpstreamRefused      4xx   the backend said no to this very request; asking another is no cure
    |  |- UpstreamMisconfigured 502  the backend rejects our key or our address of it
    |  |- UpstreamFailed       5xx   5xx, or an error wearing a 200
    |  |- UpstreamLimited      429   too many requests at the moment; the same will do later
    |  |- UpstreamExhausted    429   the quota is used up; waiting is no cure
    |  |- UpstreamFoundNothing 502   a web search without a result; the backend is well
    |  |- UpstreamUnavailable  503   not asked at all: it is cooling down, full or failing
    |  `- UpstreamBroken       502   the answer died half-way
    `- Aborted                       we stopped on purpose; shown only where somebody is left to read it
       |- ClientGone           499
       |- RequestCancelled     499   by POST /v1/requests/{id}/cancel
       |- SpeculationLost            the decision went elsewhere
       |- HedgeLost                  the same was asked twice, and the other call was faster
       `- AnswerSufficient           the classifier's word stands; the rest is not needed

Foreign exceptions become these at one border each: http/client.py for HTTP, storage/usage.py for the database, api/
for Flask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import orjson


class RouterError(Exception):
    """Base of the tree. ``str(error)`` is the message a client may read: never a key, never a path."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None


class ClientError(RouterError):
    """The client sent something that cannot be answered as it stands."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(ClientError):
    """400, naming the field that is wrong."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Unauthenticated(ClientError):
    """401: a key is required here."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(ClientError):
    """403: somebody else may."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(ClientError):
    """404: no such path."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """404: no model of that name; the message offers the nearest ones."""

    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, nearest: Sequence[str], why: str | None = None) -> None:
        hint = f" {why}" if why else f" Did you mean: {', '.join(nearest)}?" if nearest else ""
        super().__init__(f"The model '{model}' does not exist here.{hint} GET /v1/models lists them all.")


class SessionNotFound(NotFound):
    """404: there is no such session, or none that this client may see."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session '{session_id}' here; the oldest are deleted in time")


class MethodNotAllowed(ClientError):
    """405: the path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class SlowBody(ClientError):
    """408: the request body stalled."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(ClientError):
    """413: the request body is over the limit."""

    status = 413
    code = "request_too_large"


class Overloaded(RouterError):
    """503: all places are taken."""

    status = 503
    type = "server_error"
    code = "server_is_overloaded"
    retry_after_s = 1


class InternalError(RouterError):
    """500: something of ours broke; the log has the traceback."""

    code = "internal_error"


INTERNAL = "internal error; the router's log has the details"
"""All that a client is told of a defect of ours."""


class ShuttingDown(RouterError):
    """503: the router is being stopped."""

    status = 503
    code = "shutting_down"


class StoreUnavailable(RouterError):
    """503: the database does not answer, or not in time. ``detail`` is for the log: it may name hosts and files."""

    status = 503
    code = "store_unavailable"

    def __init__(self, detail: str, message: str = "the database of usage does not answer; the log says why") -> None:
        super().__init__(message)
        self.detail = detail


class RowRefused(Exception):
    """The database will not take a row, now or later: a value is beyond its type. Never shown."""


class Source(NamedTuple):
    """Which backend and which of its models."""

    backend: str
    model: str


class UpstreamError(RouterError):
    """A backend did not answer. ``recoverable``: another backend may be asked instead; ``transient``: it may be worth
    asking the same one again in a moment."""

    type = "upstream_error"
    status = 502
    code: str | None = "upstream_error"
    recoverable: ClassVar[bool] = True
    transient: ClassVar[bool] = False

    usage: Any = None
    """What the backend told of its usage, although it failed; in the terms of its API."""

    def __init__(
        self,
        message: str,
        source: Source,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{source.backend} ({source.model}): {message}")
        self.detail = message
        self.source = source
        self.status = status or self.status
        self.code = code or self.code
        self.param = param
        self.retry_after_s = retry_after_s


class UpstreamUnreachable(UpstreamError):
    """The backend never saw the request."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """A deadline ran out while the backend held the request."""

    status = 504
    code = "upstream_timeout"


class UpstreamRefused(UpstreamError):
    """The backend rejected this request for what is in it; the client gets its status and words."""

    type = "invalid_request_error"
    status = 400
    code = "upstream_refused"
    recoverable = False


class UpstreamMisconfigured(UpstreamError):
    """The backend rejects our credentials: the operator's fault, not the client's, hence 502."""

    code = "upstream_misconfigured"


class UpstreamFailed(UpstreamError):
    """The backend reports a failure of its own, or answered something that is no answer."""

    code = "upstream_failed"
    transient = True


class UpstreamLimited(UpstreamError):
    """429: the backend has had too many requests; ``retry_after_s`` is its own word, if it gave one."""

    type = "rate_limit_error"
    status = 429
    code = "rate_limit_exceeded"


class UpstreamExhausted(UpstreamError):
    """429 for want of money or quota: no wait helps."""

    type = "rate_limit_error"
    status = 429
    code = "insufficient_quota"


class UpstreamFoundNothing(UpstreamError):
    """A search worked and had no result."""


class UpstreamUnavailable(UpstreamError):
    """The backend was not asked: its breaker is open, or all its places are taken."""

    status = 503
    code = "upstream_unavailable"


class UpstreamBroken(UpstreamError):
    """The connection died with the answer unfinished."""

    code = "upstream_broken"


class Aborted(RouterError):
    """We shut the socket ourselves; the subclass says why."""

    status = 499
    code = "aborted"


class ClientGone(Aborted):
    """The client hung up."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class RequestCancelled(Aborted):
    """Somebody asked for the end of it."""

    code = "request_cancelled"

    def __init__(self) -> None:
        super().__init__("the request was cancelled")


class SpeculationLost(Aborted):
    """Another route was decided while the speculative answer was under way."""


class HedgeLost(Aborted):
    """The other of two equal calls was faster."""


class AnswerSufficient(Aborted):
    """What has been read is all that is needed."""


def envelope(error: RouterError) -> dict[str, Any]:
    """The OpenAI error object, ``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}


def envelope_json(error: RouterError) -> bytes:
    """The envelope as the body of an error response."""
    return orjson.dumps(envelope(error))


def error_event(error: RouterError) -> bytes:
    """The envelope as a server-sent event, for a stream that has begun.

    The official SDK raises APIError on any ``data:`` JSON with a truthy top-level ``error`` and ignores an
    ``event: error`` without one (openai 3.54.0, _streaming.py), so it is a plain data event.
    """
    return b"data: " + envelope_json(error) + b"\n\n"
