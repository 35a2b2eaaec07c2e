"""Answers of the Responses API in the database.

To be imported when it is needed: SQLAlchemy takes a third of a second to load.
"""

from __future__ import annotations

import time

from sqlalchemy import delete, insert, select

from ai_router.storage.kept_response import KeptResponse
from ai_router.storage.store import Store
from ai_router.storage.tables import responses

MAX_ROWS = 10_000
KEEP_S = 30 * 86_400.0


class ResponseStore(Store):
    """Reads and writes answers. Each belongs to a client."""

    def add(self, kept: KeptResponse) -> None:
        """Keep an answer. The oldest beyond MAX_ROWS, and those older than KEEP_S, are deleted."""
        now = time.time()
        row = {"id": kept.id, "client": kept.client, "at": now, "previous": kept.previous}
        row |= {"input": kept.input_json.decode(), "response": kept.response_json.decode()}
        with self.begin() as connection:
            connection.execute(delete(responses).where(responses.c.id == kept.id, responses.c.client == kept.client))
            connection.execute(insert(responses).values(row))
            connection.execute(delete(responses).where(responses.c.at < now - KEEP_S))
            beyond = select(responses.c.at).order_by(responses.c.at.desc()).offset(MAX_ROWS).limit(1).scalar_subquery()
            connection.execute(delete(responses).where(responses.c.at <= beyond))

    def get(self, response_id: str, client: str) -> KeptResponse | None:
        """The answer of that id, if the client has one."""
        query = select(responses).where(responses.c.id == response_id, responses.c.client == client)
        with self.begin() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        return KeptResponse(row["id"], row["client"], row["previous"], row["input"].encode(), row["response"].encode())

    def delete(self, response_id: str, client: str) -> bool:
        """Delete it; whether there was one."""
        query = delete(responses).where(responses.c.id == response_id, responses.c.client == client)
        with self.begin() as connection:
            return connection.execute(query).rowcount > 0
