"""Every failure that the router reports, in one tree. envelope.py has the form in which clients get it.

    RouterError
    |- ClientError                   the client has to change its request
    |  |- InvalidRequest       400   malformed JSON, a wrong type, an empty list
    |  |- Unauthenticated      401   no key, or a wrong one
    |  |- Forbidden            403   a valid key that may not see this
    |  |  |- NotPermitted     403   a route or model that the key may not use (dispatch/permission.py)
    |  |  `- BrowserRefused   403   without keys: another web page, or a name that is not known
    |  |- NotFound             404   no such path, or no such request under way
    |  |  |- ModelNotFound     404   no model or route of that name
    |  |  |- SessionNotFound   404   no session of that id, or one of another client
    |  |  |- KeyNotFound       404   no virtual key of that id (storage/keys.py)
    |  |  |- ThreadNotFound    404   no such thread or message, or somebody else's (storage/thread_rows.py)
    |  |  `- ResponseNotFound  404   no such answer of the Responses API (storage/response_keeper.py)
    |  |- MethodNotAllowed     405
    |  |- SlowBody             408   the body did not arrive in time
    |  |- NoTextKept           409   feedback on a request without its text (web/feedback.py)
    |  |- BodyTooLarge         413
    |  |- UnknownEncoding      415   a compression of the body that is not known (web/unpacking.py)
    |  `- NotSetUp             501   nobody is named for requests of this kind (web/passing.py)
    |- NotLocal                403   a local-only request would leave the local network (http/local_only.py)
    |- Overloaded              503   the limit of requests under way is reached
    |- RateLimited             429   a key's limit for a minute, or of requests at a time (keys/errors.py)
    |- BudgetExhausted         429   a key's budget does not suffice
    |- BudgetUnavailable       503   what a key has spent cannot be found out
    |- InternalError           500   a defect of the router
    |- ShuttingDown            503   the router is being stopped
    |- SharedUnavailable       503   Redis cannot be reached, and this needs it (shared/client.py)
    |- StoreUnavailable        503   the database does not answer, or is switched off
    |  `- StoreGone            503   its file is gone or broken: it has to be opened anew
    |- UpstreamError                 a backend could not answer (carries backend and model)
    |  |- UpstreamUnreachable  502   refused, no such host, TLS; the backend saw no request
    |  |- UpstreamTimeout      504   no connection, no first byte or no end in time, or silence in between
    |  |  `- IdleConnectionSilent 504  the same, where perhaps only the connection was dead
    |  |- UpstreamRefused      4xx   the backend refuses this request; another backend is not asked
    |  |  |- RaisedLimitRefused 4xx  the same, of a limit of tokens that the router had raised
    |  |  |- ApiNotSpoken       4xx   the same, of an API that it does not have
    |  |  |  `- PriorityRefused 4xx   the same, of vLLM's priorities (dispatch/priorities.py)
    |  |  `- CannotCarry        400   a field has no place in the backend's API (dispatch/client_form.py)
    |  |- UpstreamMisconfigured 502  the backend rejects our key, or redirects
    |  |- UpstreamFailed       5xx   5xx, an error inside a status 200, or something that is no answer
    |  |- UpstreamLimited      429   too many requests at the moment; the same request may work later
    |  |- UpstreamExhausted    429   the quota is used up; waiting does not help
    |  |- UpstreamFoundNothing 502   a web search without a result; the backend works
    |  |- UpstreamUnavailable  503   not asked at all: its breaker is open, or it is full
    |  `- UpstreamBroken       502   the connection ended in the middle, or before the answer
    `- Aborted                       the router ended the call; a client sees it only if it is still there
       |- ClientGone           499   the client closed its connection
       |- RequestCancelled     499   by POST /v1/requests/{id}/cancel
       |- NobodyReads          499   the readers of a thread's answer have left (threads/answer.py)
       |- SpeculationLost            the decision led to another backend
       |- HedgeLost                  one of two equal calls: the other was faster, or both took too long
       `- AnswerSufficient           the rest of the response is not needed

Exceptions of libraries become these in http/exceptions.py, storage/store.py and, of Flask, web/responses.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple


class RouterError(Exception):
    """The base of the tree. ``str(error)`` is the message for the client, without keys and paths of files.

    ``status``, ``type``, ``code`` and ``param`` are those of the envelope; ``retry_after_s`` is sent as Retry-After.
    """

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None


class ClientError(RouterError):
    """The client's request cannot be answered: it is wrong, or not allowed."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(ClientError):
    """400: the request is wrong. ``param`` names the field."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Unauthenticated(ClientError):
    """401: a key is needed, or the given one is wrong."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class Forbidden(ClientError):
    """403: the key is valid, but may not see this."""

    status, type, code = 403, "permission_error", "forbidden"


class BrowserRefused(Forbidden):
    """403, without keys: another page asked, or under an unknown name, or without a header that no form can send."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class NotFound(ClientError):
    """404: no such path, or no such request under way."""

    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """404: no model of that name; the message names ``nearest``, or says ``why``."""

    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, nearest: Sequence[str], why: str | None = None) -> None:
        hint = f" {why}" if why else f" Did you mean: {', '.join(nearest)}?" if nearest else ""
        super().__init__(f"The model '{model}' does not exist here.{hint} GET /v1/models lists them all.")


class SessionNotFound(NotFound):
    """404: no such session, or it belongs to another client."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session '{session_id}' here; the oldest are deleted in time")


class MethodNotAllowed(ClientError):
    """405: the path exists, but not with this method."""

    status, code = 405, "method_not_allowed"


class SlowBody(ClientError):
    """408: the request body did not arrive in time."""

    status, code = 408, "request_timeout"


class BodyTooLarge(ClientError):
    """413: the request body is over the limit."""

    status, code = 413, "request_too_large"


class Overloaded(RouterError):
    """503: the limit of requests under way is reached."""

    status = 503
    code = "server_is_overloaded"
    retry_after_s = 1


class InternalError(RouterError):
    """500: a defect of the router; the log has the traceback."""

    code = "internal_error"


INTERNAL = "internal error; the router's log has the details"
"""The message of every InternalError. Details are in the log only."""


class ShuttingDown(RouterError):
    """503: the router is being stopped."""

    status, code = 503, "shutting_down"


class StoreUnavailable(RouterError):
    """503: the database does not answer, or is off. ``detail``, for the log, may name hosts and files."""

    status = 503
    code = "store_unavailable"

    def __init__(self, detail: str, message: str = "the database does not answer; the log says why") -> None:
        super().__init__(message)
        self.detail = detail


class StoreGone(StoreUnavailable):
    """503: the database's file was deleted, replaced, or broken and set aside. It has to be opened anew."""


class Source(NamedTuple):
    """The backend, and the model of it, that an error or a call is about."""

    backend: str
    model: str


class UpstreamError(RouterError):
    """A backend did not answer. ``recoverable``: another backend may be asked. ``transient``: the same one may be asked
    again. ``detail`` is the message without the backend's name, ``own_words`` the same without anything that the
    backend wrote: that may quote what the client has said."""

    type = "upstream_error"
    status = 502
    code: str | None = "upstream_error"
    recoverable: ClassVar[bool] = True
    transient: ClassVar[bool] = False

    usage: Any = None
    """The token usage that the backend reported although it failed, in the form of its API; None: none."""

    def __init__(
        self,
        message: str,
        source: Source,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        own_words: str | None = None,
    ) -> None:
        super().__init__(f"{source.backend} ({source.model}): {message}")
        self.detail = message
        self.own_words = own_words or message
        self.source = source
        self.status = status or self.status
        self.code = code or self.code
        self.param = param
        self.retry_after_s = retry_after_s


class UpstreamUnreachable(UpstreamError):
    """502: no connection; the backend saw no request."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """504: the connect, the first byte, a single read or the whole answer took too long."""

    status = 504
    code = "upstream_timeout"


class IdleConnectionSilent(UpstreamTimeout):
    """504: before any byte, on a connection that had been idle: perhaps only a firewall has forgotten it."""


class UpstreamRefused(UpstreamError):
    """4xx: the backend refuses this request because of its content; the client gets its status and message."""

    type = "invalid_request_error"
    status = 400
    code = "upstream_refused"
    recoverable = False


class RaisedLimitRefused(UpstreamRefused):
    """4xx: the backend refuses a limit of tokens that the router has raised: the prompt leaves no room for it."""


class ApiNotSpoken(UpstreamRefused):
    """4xx: the backend does not have the API that the client speaks. It is asked again in another one."""


class UpstreamMisconfigured(UpstreamError):
    """502: the backend rejects our key, or redirects. The operator has to change that, not the client."""

    code = "upstream_misconfigured"


class UpstreamFailed(UpstreamError):
    """5xx: the backend reports a failure of its own, or sent something that is no answer."""

    code = "upstream_failed"
    transient = True


class UpstreamLimited(UpstreamError):
    """429: too many requests. ``retry_after_s``: the wait that it asks for; else the dispatcher fills in a cooldown."""

    type = "rate_limit_error"
    status = 429
    code = "rate_limit_exceeded"


class UpstreamExhausted(UpstreamError):
    """429: the quota or the credit is used up; waiting does not help."""

    type = "rate_limit_error"
    status = 429
    code = "insufficient_quota"


class UpstreamFoundNothing(UpstreamError):
    """502: a web search worked, but had no result."""


class UpstreamUnavailable(UpstreamError):
    """503: not asked: its breaker is open, or it is full. 429: it wants no calls now, or its quota is used up."""

    status = 503
    code = "upstream_unavailable"


class UpstreamBroken(UpstreamError):
    """502: the connection ended before the answer was complete."""

    code = "upstream_broken"


class Aborted(RouterError):
    """499: the router ended the call on purpose; the subclass says why."""

    status, code = 499, "aborted"


class ClientGone(Aborted):
    """The client closed its connection."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class RequestCancelled(Aborted):
    """Cancelled by POST /v1/requests/{id}/cancel."""

    code = "request_cancelled"

    def __init__(self) -> None:
        super().__init__("the request was cancelled")


class SpeculationLost(Aborted):
    """The decision led to another backend while the speculative call was under way."""


class HedgeLost(Aborted):
    """One of two equal calls: the other was faster, or both took too long."""


class AnswerSufficient(Aborted):
    """What has been read is enough; the rest of the response is not needed."""
