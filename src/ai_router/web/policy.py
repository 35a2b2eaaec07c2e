"""What a client, or the owner of its key, says of where a request may go: ``local-only``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ai_router.errors import InvalidRequest
from ai_router.local_policy import FIELD, LOCAL_ONLY
from ai_router.virtual_key import VirtualKey

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText

HEADER = "x-router-policy"
VARIABLE = "HTTP_X_ROUTER_POLICY"
"""Where the WSGI environment holds the header."""
_OWN_FIELDS = frozenset({FIELD, "router_quality"})
"""In the metadata of a body."""


class PolicySource(Protocol):
    """What is known of a request besides its body."""

    @property
    def policy(self) -> str | None: ...
    @property
    def key(self) -> VirtualKey | None: ...
    @property
    def finder(self) -> PrivateText | None: ...


def why_local_only(source: PolicySource, payload: Any, raw: bytes = b"") -> str:
    """Why a request is local-only; empty: it is not. ``payload``: its body as JSON values; None: it is none, but
    ``raw``.

    Raises InvalidRequest for a policy that is not known: one that is misspelt must not be taken for none.
    """
    if source.policy is not None:
        _check(source.policy, HEADER)
        return f"{HEADER} asks for it"
    if isinstance(payload, Mapping) and (wanted := in_metadata(payload, FIELD)) is not None:
        _check(wanted, f"metadata.{FIELD}")
        return f"metadata.{FIELD} asks for it"
    if source.key is not None and source.key.local_only:
        return "its key is for local models only"
    if source.finder is None:
        return ""
    found = source.finder.found_in(raw.decode("utf-8", "replace")) if raw else source.finder.found_in_body(payload)
    return f"it has {found} in it" if found else ""


def in_metadata(payload: Mapping[str, Any], field: str) -> Any:
    """The value of a field in ``metadata`` of a body, however its name is written; None: there is none.

    Raises InvalidRequest for metadata that names the field and is no object.
    """
    metadata = payload.get("metadata")
    if not isinstance(metadata, Mapping):
        if metadata is not None and field in str(metadata).lower():
            raise InvalidRequest(f"'metadata' must be an object, to have a {field} in it", "metadata")
        return None
    names = (name for name in metadata if _canonical(name) == field)
    return next((metadata[name] for name in names if metadata[name] is not None), None)


def without_own_fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata`` as backends get it: what is meant for the router is nobody else's, and OpenAI refuses metadata in
    a request that it does not store."""
    return {name: value for name, value in metadata.items() if _canonical(name) not in _OWN_FIELDS}


def _canonical(name: Any) -> str:
    return str(name).lower().replace("-", "_")


def _check(policy: Any, where: str) -> None:
    if not isinstance(policy, str) or policy.strip().lower() != LOCAL_ONLY:
        raise InvalidRequest(f"'{where}' must be {LOCAL_ONLY}", where)
