"""How the body of a request, or of an answer that is kept, says that nothing of it may leave: in its ``metadata``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOCAL_ONLY = "local-only"
FIELD = "router_policy"


def marked_local_only(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body, which is local-only from now on."""
    metadata = body.get("metadata")
    return {**body, "metadata": {**(metadata if isinstance(metadata, Mapping) else {}), FIELD: LOCAL_ONLY}}


def says_local_only(body: Mapping[str, Any]) -> bool:
    """Whether a body that this module has marked is local-only."""
    metadata = body.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get(FIELD) == LOCAL_ONLY
