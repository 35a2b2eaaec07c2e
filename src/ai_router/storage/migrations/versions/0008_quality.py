"""The quality that a key's requests want; and verdicts about requests that may not leave the local network."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("keys", sa.Column("quality", sa.Integer, nullable=True))
    op.add_column("feedback", sa.Column("local_only", sa.Boolean, nullable=False, server_default=sa.false()))
