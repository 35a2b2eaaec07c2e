"""The tables of threads: conversations that are kept until somebody deletes them, and their messages.

To be imported by thread_access.py only, when a thread is asked for: SQLAlchemy takes a third of a second to load.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, insert, select, update

from ai_router.storage.store import Store
from ai_router.storage.tables import thread_messages, threads
from ai_router.storage.thread_rows import INTERRUPTED, LEASE_S, STREAMING, Owner, Row, ThreadNotFound

_MAX_TITLE = 200


def new_id() -> str:
    """The id of a new thread or message."""
    return uuid.uuid4().hex


class ThreadStore(Store):
    """Reads and writes threads. ``clock``: seconds since 1970."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url)
        self._clock = clock

    def create(self, organization: str, client: str, title: str = "") -> Row:
        """A new thread."""
        now = self._clock()
        row = {
            "id": new_id(),
            "organization": organization,
            "client": client,
            "title": title[:_MAX_TITLE],
            "created_at": now,
            "updated_at": now,
        }
        with self.begin() as connection:
            connection.execute(insert(threads).values(row))
        return row

    def page(self, owner: Owner, limit: int, before: float | None) -> Sequence[Row]:
        """The threads that were used last, newest first; ``before``: only those whose ``updated_at`` is less."""
        query = select(threads).where(_owned_by(owner)).order_by(threads.c.updated_at.desc()).limit(limit)
        if before is not None:
            query = query.where(threads.c.updated_at < before)
        return self._rows(query)

    def get(self, owner: Owner, thread: str) -> Row:
        """One thread. Raises ThreadNotFound."""
        rows = self._rows(select(threads).where(_owned_by(owner), threads.c.id == thread))
        if not rows:
            raise ThreadNotFound
        return rows[0]

    def rename(self, owner: Owner, thread: str, title: str) -> Row:
        """Give a thread another title. Raises ThreadNotFound."""
        changed = update(threads).where(_owned_by(owner), threads.c.id == thread).values(title=title[:_MAX_TITLE])
        with self.begin() as connection:
            if not connection.execute(changed).rowcount:
                raise ThreadNotFound
        return self.get(owner, thread)

    def delete(self, owner: Owner, thread: str) -> None:
        """Delete a thread with its messages. Raises ThreadNotFound."""
        with self.begin() as connection:
            if not connection.execute(delete(threads).where(_owned_by(owner), threads.c.id == thread)).rowcount:
                raise ThreadNotFound
            connection.execute(delete(thread_messages).where(thread_messages.c.thread == thread))

    def messages(self, thread: str, limit: int | None = None, before: int | None = None) -> Sequence[Row]:
        """The last ``limit`` messages of a thread (None: all), oldest first; ``before``: only those with a lesser
        ``position``. Messages whose lease has expired are marked first."""
        self._interrupt_expired(thread)
        query = select(thread_messages).where(thread_messages.c.thread == thread)
        if before is not None:
            query = query.where(thread_messages.c.position < before)
        query = query.order_by(thread_messages.c.position.desc())
        return self._rows(query if limit is None else query.limit(limit))[::-1]

    def message(self, thread: str, message: str) -> Row:
        """One message. Raises ThreadNotFound."""
        self._interrupt_expired(thread)
        found = self._rows(
            select(thread_messages).where(thread_messages.c.thread == thread, thread_messages.c.id == message)
        )
        if not found:
            raise ThreadNotFound("message")
        return found[0]

    def add(self, thread: str, *messages: Mapping[str, Any], replaces: int | None = None) -> Sequence[Row]:
        """Append messages, all or none, and note that the thread was used. ``messages``: values of columns.
        ``replaces``: first delete the message at that position, and all behind it. Raises ThreadNotFound."""
        now, position = self._clock(), time.time_ns()
        rows = [_with_defaults(message, thread, position + number, now) for number, message in enumerate(messages)]
        with self.begin() as connection:
            used = update(threads).where(threads.c.id == thread).values(updated_at=now)
            if not connection.execute(used).rowcount:
                raise ThreadNotFound  # deleted meanwhile
            if replaces is not None:
                behind = and_(thread_messages.c.thread == thread, thread_messages.c.position >= replaces)
                connection.execute(delete(thread_messages).where(behind))
            connection.execute(insert(thread_messages), rows)
        return rows

    def name_if_nameless(self, thread: str, title: str) -> None:
        """Give a thread a title if it has none."""
        nameless = and_(threads.c.id == thread, threads.c.title == "")
        with self.begin() as connection:
            connection.execute(update(threads).where(nameless).values(title=title[:_MAX_TITLE]))

    def finish(self, message: str, values: Mapping[str, Any]) -> None:
        """The end of a message that was being streamed. Nothing happens if it has been deleted, or marked meanwhile."""
        ended = {**_storable(values), "owner": None, "lease_until": None, "finished_at": self._clock()}
        still = and_(thread_messages.c.id == message, thread_messages.c.status == STREAMING)
        with self.begin() as connection:
            connection.execute(update(thread_messages).where(still).values(ended))

    def lease(self) -> float:
        """Until when a lease that begins now lasts."""
        return self._clock() + LEASE_S

    def renew(self, owner: str) -> None:
        """Renew the leases of all messages that the process ``owner`` streams."""
        of_owner = and_(thread_messages.c.owner == owner, thread_messages.c.status == STREAMING)
        with self.begin() as connection:
            connection.execute(update(thread_messages).where(of_owner).values(lease_until=self.lease()))

    def _interrupt_expired(self, thread: str) -> None:
        expired = and_(
            thread_messages.c.thread == thread,
            thread_messages.c.status == STREAMING,
            thread_messages.c.lease_until < self._clock(),
        )
        if not self._rows(select(thread_messages.c.id).where(expired).limit(1)):
            return
        ended = {"status": INTERRUPTED, "owner": None, "lease_until": None, "finished_at": self._clock()}
        with self.begin() as connection:
            connection.execute(update(thread_messages).where(expired).values(ended))

    def _rows(self, query: Select[Any]) -> list[Row]:
        with self.begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _owned_by(owner: Owner) -> ColumnElement[bool]:
    of_organization = threads.c.organization == owner.organization
    return of_organization if owner.client is None else and_(of_organization, threads.c.client == owner.client)


def _storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without NUL in their texts, which PostgreSQL cannot take."""
    return {
        name: value.replace("\x00", "\ufffd") if isinstance(value, str) else value for name, value in values.items()
    }


def _with_defaults(message: Mapping[str, Any], thread: str, position: int, now: float) -> dict[str, Any]:
    empty = {"reasoning": "", "asked_for": "", "request_id": "", "session_id": "", "error": None}
    return {
        **empty,
        "id": new_id(),
        "details": {},
        "owner": None,
        "lease_until": None,
        "finished_at": None if message["status"] == STREAMING else now,
        **_storable(message),
        "thread": thread,
        "position": position,
        "created_at": now,
    }
