"""What a client, or the owner of its key, says of where a request may go: ``local-only``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ai_router.errors import InvalidRequest
from ai_router.types import Message
from ai_router.virtual_key import VirtualKey

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText

HEADER = "x-router-policy"
VARIABLE = "HTTP_X_ROUTER_POLICY"
"""Where the WSGI environment holds the header."""
_LOCAL_ONLY = "local-only"
_FIELD = "router_policy"


class Asker(Protocol):
    """What is known of a request besides its body."""

    @property
    def policy(self) -> str: ...
    @property
    def key(self) -> VirtualKey | None: ...
    @property
    def finder(self) -> PrivateText | None: ...


def why_local_only(asker: Asker, metadata: Any, messages: Sequence[Message]) -> str:
    """Why a request is local-only; empty: it is not. ``metadata``: the field of its body.

    Raises InvalidRequest for a policy that is not known: one that is misspelt must not be taken for none.
    """
    if why := why_asked_to_be(asker.policy, asker.key, metadata):
        return why
    found = "" if asker.finder is None else asker.finder.found_in_messages(messages)
    return f"it has {found} in it" if found else ""


def why_asked_to_be(header: str, key: VirtualKey | None, metadata: Any) -> str:
    """The same for what is said of the request, whatever is in it."""
    if header:
        _check(header, HEADER)
        return f"{HEADER} asks for it"
    if isinstance(metadata, Mapping) and metadata.get(_FIELD) is not None:
        _check(metadata[_FIELD], f"metadata.{_FIELD}")
        return f"metadata.{_FIELD} asks for it"
    return "its key is for local models only" if key is not None and key.local_only else ""


def why_body_is_local_only(asker: Asker, metadata: Any, text: str) -> str:
    """The same for a request without messages. ``text``: the words in it."""
    if why := why_asked_to_be(asker.policy, asker.key, metadata):
        return why
    found = asker.finder.found_in(text.encode("utf-8", "surrogatepass")) if asker.finder is not None and text else ""
    return f"it has {found} in it" if found else ""


def _check(policy: Any, where: str) -> None:
    if not isinstance(policy, str) or policy.strip().lower() != _LOCAL_ONLY:
        raise InvalidRequest(f"'{where}' must be {_LOCAL_ONLY}", where)
