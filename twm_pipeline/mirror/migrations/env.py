"""Alembic's entry: run the migrations on the connection that `mirror.schema.migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="alembic_version", version_table_schema="twm")
with context.begin_transaction():
    context.run_migrations()
