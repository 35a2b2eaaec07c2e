"""Virtual keys in the database. Of a secret its digest is kept, never itself.

To be imported when it is needed: SQLAlchemy takes a third of a second to load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, update

from ai_router.errors import NotFound
from ai_router.storage.key_rows import KeyRow, key_of
from ai_router.storage.store import Store
from ai_router.storage.tables import keys
from ai_router.virtual_key import VirtualKey, digest_of, shown_part


class KeyNotFound(NotFound):
    """404: no key of that id, or a revoked one."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key '{key_id[:64]}', or it is revoked")


class KeyStore(Store):
    """Reads and writes keys. ``clock``: seconds since 1970."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url)
        self._clock = clock

    def create(self, key: VirtualKey, secret: str) -> None:
        """Keep a new key with the digest of its secret."""
        row = {
            "id": key.id,
            "revision": 1,
            "name": key.name,
            "digest": digest_of(secret.encode()),
            "shown": shown_part(secret),
            "organization": key.organization,
            "user": key.user,
            "routes": sorted(key.routes),
            "models": list(key.models),
            **asdict(key.limits),
            "at_limit": key.at_limit,
            "created_at": self._clock(),
            "expires_at": key.expires_at,
            "local_only": key.local_only,
            "quality": key.quality,
        }
        with self.begin() as connection:
            connection.execute(insert(keys).values(row))

    def revoke(self, key_id: str) -> None:
        """No secret of that key is good any more. Raises KeyNotFound."""
        self._change(key_id, {"revoked_at": self._clock()})

    def rotate(self, key_id: str, secret: str, keep_old_s: float) -> None:
        """Give a key another secret; the one before is good for ``keep_old_s`` more seconds. Raises KeyNotFound."""
        old_until = self._clock() + keep_old_s if keep_old_s > 0 else None
        self._change(
            key_id,
            {
                "old_digest": keys.c.digest if old_until is not None else None,
                "old_until": old_until,
                "digest": digest_of(secret.encode()),
                "shown": shown_part(secret),
            },
        )

    def _change(self, key_id: str, values: Mapping[str, Any]) -> None:
        living = and_(keys.c.id == key_id, keys.c.revoked_at.is_(None))
        with self.begin() as connection:
            changed = connection.execute(update(keys).where(living).values(revision=keys.c.revision + 1, **values))
            if not changed.rowcount:
                raise KeyNotFound(key_id)

    def version(self) -> tuple[int, int]:
        """Two numbers that are others after each change of any key."""
        with self.begin() as connection:
            count, revisions = connection.execute(select(func.count(), func.sum(keys.c.revision))).one()
        return int(count), int(revisions or 0)

    def all(self, *, revoked: bool = True) -> Sequence[KeyRow]:
        """All keys, oldest first; ``revoked``: also those that are good for nothing any more."""
        query = select(keys).order_by(keys.c.created_at)
        if not revoked:
            now = self._clock()
            query = query.where(keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now))
        with self.begin() as connection:
            return [_row(dict(row)) for row in connection.execute(query).mappings()]


def _row(row: Mapping[str, Any]) -> KeyRow:
    return KeyRow(
        key=key_of(row),
        digest=row["digest"],
        shown=row["shown"],
        old_digest=row["old_digest"],
        old_until=row["old_until"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
