"""Judgements: which of two answers was better, and what it cost to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "judgements",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("local", sa.String(320), nullable=False),
        sa.Column("cloud", sa.String(320), nullable=False),
        sa.Column("judge", sa.String(320), nullable=False),
        sa.Column("winner", sa.String(16), nullable=False),
        sa.Column("contradicted", sa.Boolean, nullable=False),
        sa.Column("usd", sa.Float, nullable=False),
    )
    op.create_index("judgements_day", "judgements", ["day"])
    op.create_index("judgements_session", "judgements", ["session_id"])
