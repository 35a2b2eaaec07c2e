"""What a client, or the owner of its key, says of where a request may go: ``local-only``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_router.errors import InvalidRequest
from ai_router.virtual_key import VirtualKey

HEADER = "x-router-policy"
VARIABLE = "HTTP_X_ROUTER_POLICY"
"""Where the WSGI environment holds the header."""
_LOCAL_ONLY = "local-only"
_FIELD = "router_policy"


def why_local_only(header: str, key: VirtualKey | None, metadata: Any) -> str:
    """Why a request is local-only; empty: it is not. ``metadata``: the field of its body.

    Raises InvalidRequest for a policy that is not known: one that is misspelt must not be taken for none.
    """
    if header:
        _check(header, HEADER)
        return f"{HEADER} asks for it"
    if isinstance(metadata, Mapping) and metadata.get(_FIELD) is not None:
        _check(metadata[_FIELD], f"metadata.{_FIELD}")
        return f"metadata.{_FIELD} asks for it"
    return "its key is for local models only" if key is not None and key.local_only else ""


def _check(policy: Any, where: str) -> None:
    if not isinstance(policy, str) or policy.strip().lower() != _LOCAL_ONLY:
        raise InvalidRequest(f"'{where}' must be {_LOCAL_ONLY}", where)
