"""The way to the database for those who start with the process: SQLAlchemy takes a third of a second to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_router.storage.usage import UsageStore


def open_usage_store(url: str) -> UsageStore:
    """The store, with all tables up to date. Raises StoreUnavailable. To be called off the way of any request."""
    from ai_router.storage.usage import UsageStore  # noqa: PLC0415 - as said

    return UsageStore(url)
