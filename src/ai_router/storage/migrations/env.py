"""Run by alembic: applies the migrations, on the connection that storage/database.py passes to it."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
