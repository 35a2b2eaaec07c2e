"""The APIs in which clients may ask, besides chat completions. One module each; docs/design.md says how to add one.

A module that is put here is an API by itself: it has an object API (see ``ClientApi`` in apis.py), and its path is
served. What they share has no such object.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ai_router.apis import ClientApi
from ai_router.client_apis.ollama import is_ollamas

_SHARED = ("calls", "ollama", "reading")


def _load_apis() -> dict[str, ClientApi]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)
    found = [importlib.import_module(f"{__name__}.{name}").API for name in names]
    return {api.path: api for api in found}


APIS = _load_apis()
"""By the path at which each is served."""
ERROR_FORMS: Mapping[str, ClientApi] = APIS | {path: api for api in APIS.values() for path in api.error_paths}
"""By path, the API that says what an error looks like; any other path has the form of chat completions."""


def api_of(payload: Mapping[str, Any], *, says_anthropic: bool) -> ClientApi | None:
    """The API that a body is of, by its fields; None: chat completions. ``says_anthropic``: whether its client sent a
    version of Anthropic's API."""
    if not says_anthropic and is_ollamas(payload):
        return APIS["/api/chat" if "messages" in payload else "/api/generate"]
    if "messages" in payload:
        return APIS["/v1/messages"] if says_anthropic or "system" in payload else None
    return APIS["/v1/responses"] if "input" in payload else APIS["/v1/completions"] if "prompt" in payload else None
