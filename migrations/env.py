"""Alembic's entry. `gateway.db.migrate` hands over a connection; nothing here reads configuration."""

from alembic import context

from gateway.db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
context.run_migrations()
