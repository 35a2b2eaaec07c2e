"""Requests that may not leave the local network, and keys whose requests all are such."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # With a default of the server's: a router of the version before may go on writing rows for a while.
    for table in ("requests", "keys"):
        op.add_column(table, sa.Column("local_only", sa.Boolean, nullable=False, server_default=sa.false()))
