"""Whose threads a request may see."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flask import g, request

from ai_router.errors import InvalidRequest
from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.thread_rows import Owner
from ai_router.virtual_key import VirtualKey
from ai_router.web.access import whose

if TYPE_CHECKING:
    from ai_router.storage.threads import ThreadStore

_ORGANIZATION = re.compile(r"[A-Za-z0-9._-]{1,64}")


def store_with(open_threads: LazyStore[ThreadStore], thread: str) -> ThreadStore:
    """The store, if the thread is one of those who ask. Raises ThreadNotFound."""
    store = open_threads.store()
    store.get(owner_of_request(), thread)
    return store


def owner_of_request() -> Owner:
    """The organization and the key of the request. Raises InvalidRequest, and Forbidden."""
    return Owner(organization_of_request(), whose())


def organization_of_request() -> str:
    """The org that the key is bound to; else ``x-org-id``, else ``OpenAI-Organization``, else ``default``.

    Raises InvalidRequest.
    """
    key: VirtualKey | None = g.key
    if key is not None and key.organization:
        return key.organization
    for header in ("x-org-id", "openai-organization"):
        if value := request.headers.get(header):
            if not _ORGANIZATION.fullmatch(value):
                raise InvalidRequest(f"{header} may have 1 to 64 of A-Z a-z 0-9 . _ -", header)
            return value
    return "default"
