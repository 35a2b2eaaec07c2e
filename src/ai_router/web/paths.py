"""The paths of requests: as people and clients write them, and the ones that are meant.

Some forget /v1, some write it twice, since a client adds another to the address that it was given. Some leave a slash
behind. Azure's clients ask at /openai/deployments/{model}/chat/completions?api-version=..., which names the model.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from ai_router.errors import NotFound

DEPLOYMENT = "ai_router.deployment"
"""Where the WSGI environment holds the model that an address of Azure's names."""
ASKED_PATH = "ai_router.asked_path"
"""Where it holds the path as it was asked for, if that is another one."""
_VERSION, _AZURE, _DEPLOYMENTS = "v1", "openai", "deployments"
_BELOW_VERSION = frozenset(
    {
        *("audio", "chat", "completions", "embeddings", "feedback", "images", "messages", "models", "requests"),
        *("rerank", "responses", "route"),
    }
)
"""What stands behind /v1, and nowhere else."""
_MAX_SHOWN_CHARS = 200


@lru_cache(maxsize=1024)
def canonical_path(path: str) -> tuple[str, str]:
    """The path that is meant by ``path``, which has no query, and the model that it names; "": none."""
    parts = [part for part in path.split("/") if part]
    begun = _without_version(parts)
    model = ""
    if begun[:1] == [_AZURE]:
        begun = _without_version(begun[1:])
        if begun[:1] == [_DEPLOYMENTS] and len(begun) > 2:
            model, begun = begun[1], begun[2:]
    if begun and begun[0] in _BELOW_VERSION:
        return "/".join(("", _VERSION, *begun)), model
    # Without anything behind it, /v1 is no name for the console.
    return "/" + "/".join(begun or parts), ""


def _without_version(parts: list[str]) -> list[str]:
    first = next((index for index, part in enumerate(parts) if part != _VERSION), len(parts))
    return parts[first:]


def no_such_path(method: str, asked: str, known: Iterable[str]) -> NotFound:
    """The error for a path that leads nowhere. It names that of ``known`` ("POST /v1/route") which comes nearest."""
    shown = f"{method} {asked[:_MAX_SHOWN_CHARS]}"
    near = difflib.get_close_matches(shown, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return NotFound(f"there is no {shown} here; {hint}docs/offered.md has what there is")
