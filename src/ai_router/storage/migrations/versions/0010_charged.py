"""What the budgets of a request's key were charged, which is more than its known cost where an answer broke off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("requests", sa.Column("charged_usd", sa.Float, nullable=True))
